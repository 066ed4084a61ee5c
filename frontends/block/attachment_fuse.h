// The disk as one file, /dev/xvda: a FUSE file system whose root is a regular file, mounted over a regular file. Needs
// /dev/fuse and, in a container, a user namespace of its own that may mount (any since Linux 4.18).
//
// The mount is the controller's: it opens /dev/fuse and mounts; the worker gets a duplicate of the descriptor and
// speaks the protocol (fuse_server.h). Programs that have the file open keep it while workers and backends come and
// go, and wait meanwhile.
#pragma once

#include <string>

#include "frontends/block/attachment.h"

namespace caisson::block::frontend {

// Mounted when the disk is connected for the first time: until then nobody finds a file that has no answers. Unmounted
// when it is destroyed, and the file that was mounted over goes too, if it was made here.
Result<std::unique_ptr<Attachment>> open_fuse(const std::string& path);

}  // namespace caisson::block::frontend
