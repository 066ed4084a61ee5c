// An xl.cfg file, read by libxlutil: the same parser, and so the same language, as `xl create`.
//
// libxlutil hands values out by name only, so the names themselves (to say which ones nobody knows) and their lines (to
// say where a wrong value is) come from a scan of the same text. Settings of the command line are appended to the file,
// as xl does it: the last assignment of a key counts.
//
// Every problem becomes a line "FILE:LINE: what" in problems(); nothing is printed. Threads: one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"

struct XLU_Config;

namespace caisson::toolstack {

// One `key = value` of the text, in its order.
struct CfgKey {
    std::string name;
    unsigned line = 0;  // from 1; counts on through the settings of the command line
};

// The keys a text assigns, found without understanding the values: strings, lists and comments are skipped over.
std::vector<CfgKey> scan_keys(std::string_view text);

class CfgFile {
  public:
    // `extra`: settings of the command line ("memory=64"). `name` is only for messages. An error is a syntax error, and
    // its text names the line.
    static Result<CfgFile> parse(std::string_view text, const std::string& name, const std::vector<std::string>& extra);
    static Result<CfgFile> read(const std::string& path, const std::vector<std::string>& extra);
    CfgFile(CfgFile&&) noexcept;
    CfgFile& operator=(CfgFile&&) noexcept;
    ~CfgFile();

    const std::string& name() const { return name_; }
    const std::vector<CfgKey>& keys() const { return keys_; }

    // Absent keys are nullopt (or an empty list); a value of the wrong shape is reported, then treated as absent.
    std::optional<std::string> text(std::string_view key);
    std::optional<long> number(std::string_view key, long low, long high);
    std::optional<bool> flag(std::string_view key);  // 0 or 1
    std::vector<std::string> list(std::string_view key);
    std::optional<std::string> one_of(std::string_view key, std::initializer_list<std::string_view> allowed);

    // "FILE:LINE: " of the assignment of `key` that counts.
    std::string where(std::string_view key) const;
    void problem(std::string_view key, std::string_view what);
    const std::vector<std::string>& problems() const { return problems_; }

  private:
    struct Destroy {
        void operator()(XLU_Config* cfg) const;
    };
    struct Report;  // the stream that libxlutil complains to
    CfgFile();
    void take_reports();

    std::string name_;
    unsigned file_lines_ = 0;  // lines after these come from the command line
    std::vector<CfgKey> keys_;
    std::vector<std::string> problems_;
    std::unique_ptr<Report> report_;
    std::unique_ptr<XLU_Config, Destroy> cfg_;
};

}  // namespace caisson::toolstack
