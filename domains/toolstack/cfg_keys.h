// Which keys of a cfg file this version uses, which mean something to Xen alone, and which it has to refuse:
// xl.cfg(5)'s and the caisson_ keys of domain_config.h. No key is swallowed. Threads: any.
#pragma once

#include <string>
#include <vector>

#include "domains/toolstack/cfg_file.h"

namespace caisson::toolstack {

// "FILE:LINE: KEY: ..." for each key that has no use here or is not known; the domain can be made all the same.
std::vector<std::string> warnings_about_keys(const CfgFile& file);

// Lists of devices of classes that this version has no backend for are problems of the file, unless they are empty.
void refuse_unserved(CfgFile& file);

}  // namespace caisson::toolstack
