#include "domains/toolstack/cfg_file.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "domains/toolstack/xlutil.h"
#include "ring/log.h"

namespace caisson::toolstack {
namespace {

constexpr std::size_t longest_file = 1 << 20;  // an operator's file, but a mistake (a disk image) is caught early

bool key_start(char c) { return c >= 'a' && c <= 'z'; }
bool key_rest(char c) { return key_start(c) || (c >= '0' && c <= '9') || c == '_'; }

// Walks over the text; knows only what can hide a key: comments, strings, brackets.
class Scanner {
  public:
    explicit Scanner(std::string_view text) : text_(text) {}

    std::vector<CfgKey> keys() {
        std::vector<CfgKey> found;
        while (at_ < text_.size()) {
            if (statement_start_ && key_start(text_[at_]))
                found.push_back(key());
            else
                skip();
        }
        return found;
    }

  private:
    CfgKey key() {
        const std::size_t start = at_;
        while (at_ < text_.size() && key_rest(text_[at_])) ++at_;
        statement_start_ = false;
        return {std::string(text_.substr(start, at_ - start)), line_};
    }

    void skip() {
        const char c = text_[at_];
        if (c == '#') {
            at_ = std::min(text_.find('\n', at_), text_.size());
            return;
        }
        if (c == '\'' || c == '"') return skip_string(c);
        if (c == '[') ++depth_;
        if (c == ']' && depth_ > 0) --depth_;
        if (c == '\n') ++line_;
        if (depth_ == 0 && (c == '\n' || c == ';')) statement_start_ = true;
        if (c != ' ' && c != '\t' && c != '\n' && c != ';') statement_start_ = false;
        ++at_;
    }

    void skip_string(char quote) {
        statement_start_ = false;
        for (++at_; at_ < text_.size() && text_[at_] != quote && text_[at_] != '\n'; ++at_)
            if (text_[at_] == '\\') ++at_;
        if (at_ < text_.size() && text_[at_] == quote) ++at_;
    }

    std::string_view text_;
    std::size_t at_ = 0;
    unsigned line_ = 1, depth_ = 0;
    bool statement_start_ = true;
};

}  // namespace

std::vector<CfgKey> scan_keys(std::string_view text) { return Scanner(text).keys(); }

// A stream into memory; libxlutil keeps the FILE* as long as the configuration lives.
struct CfgFile::Report {
    char* bytes = nullptr;
    std::size_t length = 0, taken = 0;
    std::FILE* stream = open_memstream(&bytes, &length);
    Report() = default;
    Report(const Report&) = delete;
    Report& operator=(const Report&) = delete;
    ~Report() {
        if (stream != nullptr) std::fclose(stream);
        std::free(bytes);
    }
};

CfgFile::CfgFile() : report_(std::make_unique<Report>()) {}
CfgFile::CfgFile(CfgFile&&) noexcept = default;
CfgFile& CfgFile::operator=(CfgFile&&) noexcept = default;
CfgFile::~CfgFile() = default;
void CfgFile::Destroy::operator()(XLU_Config* cfg) const { xlu_cfg_destroy(cfg); }

Result<CfgFile> CfgFile::parse(std::string_view text, const std::string& name, const std::vector<std::string>& extra) {
    if (text.size() > longest_file) return host_fault(EFBIG, "configuration file", name);
    if (text.find('\0') != std::string_view::npos)
        return host_fault(EINVAL, "configuration file", name + ": holds a zero byte, so it is no text");
    CfgFile file;
    file.name_ = name;
    std::string all(text);
    if (!all.empty() && all.back() != '\n') all += '\n';
    file.file_lines_ = static_cast<unsigned>(std::count(all.begin(), all.end(), '\n'));
    for (const auto& setting : extra) all += setting + '\n';

    file.cfg_.reset(file.report_->stream ? xlu_cfg_init(file.report_->stream, name.c_str()) : nullptr);
    if (!file.cfg_) return host_fault(ENOMEM, "configuration file", name);
    if (xlu_cfg_readdata(file.cfg_.get(), all.data(), static_cast<int>(all.size())) != 0) {
        file.take_reports();
        std::string reasons;
        for (const auto& line : file.problems_) reasons += (reasons.empty() ? "" : "\n") + line;
        return unsupported(reasons.empty() ? "configuration file" : "", reasons.empty() ? name : reasons);
    }
    file.keys_ = scan_keys(all);
    return file;
}

Result<CfgFile> CfgFile::read(const std::string& path, const std::vector<std::string>& extra) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return host_fault(errno, "configuration file", path);
    std::string text;
    text.resize(longest_file + 1);
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(in.gcount()));
    if (in.bad()) return host_fault(EIO, "configuration file", path);
    return parse(text, path, extra);
}

// libxlutil's complaints, one a line, escaped: they quote the file.
void CfgFile::take_reports() {
    std::fflush(report_->stream);
    std::string_view news(report_->bytes + report_->taken, report_->length - report_->taken);
    report_->taken = report_->length;
    while (!news.empty()) {
        const auto end = std::min(news.find('\n'), news.size());
        if (end > 0) problems_.push_back(escaped(news.substr(0, end)));
        news.remove_prefix(std::min(end + 1, news.size()));
    }
}

std::optional<std::string> CfgFile::text(std::string_view key) {
    const char* value = nullptr;
    constexpr int silent = 1;  // its own sentence says neither what was expected nor what to write
    const int failed = xlu_cfg_get_string(cfg_.get(), std::string(key).c_str(), &value, silent);
    if (failed == EINVAL) problem(key, "is a list, expected a single value: " + std::string(key) + "=\"...\"");
    if (failed != 0) return std::nullopt;
    return value;
}

std::optional<long> CfgFile::number(std::string_view key, long low, long high) {
    const auto value = text(key);
    if (!value) return std::nullopt;
    char* end = nullptr;
    errno = 0;
    const long number = std::strtol(value->c_str(), &end, 0);
    if (value->empty() || *end != '\0' || errno != 0)
        return problem(key, "'" + escaped(*value) + "' is not a number"), std::nullopt;
    if (number < low || number > high)
        return problem(key, std::to_string(number) + " is not within " + std::to_string(low) + " to " +
                                std::to_string(high)),
               std::nullopt;
    return number;
}

std::optional<bool> CfgFile::flag(std::string_view key) {
    const auto value = number(key, 0, 1);
    if (!value) return std::nullopt;
    return *value == 1;
}

std::vector<std::string> CfgFile::list(std::string_view key) {
    XLU_ConfigList* entries = nullptr;
    int count = 0;
    constexpr int silent = 1;
    const int failed = xlu_cfg_get_list(cfg_.get(), std::string(key).c_str(), &entries, &count, silent);
    if (failed == EINVAL) problem(key, "is a single value, expected a list: " + std::string(key) + "=[\"...\"]");
    if (failed != 0) return {};
    std::vector<std::string> values;
    for (int i = 0; i < count; ++i) {
        const char* value = xlu_cfg_get_listitem(entries, i);
        if (value != nullptr)
            values.emplace_back(value);
        else
            problem(key, "entry " + std::to_string(i + 1) + " is a list, expected a string");
    }
    take_reports();
    return values;
}

std::optional<std::string> CfgFile::one_of(std::string_view key, std::initializer_list<std::string_view> allowed) {
    auto value = text(key);
    if (!value || std::find(allowed.begin(), allowed.end(), *value) != allowed.end()) return value;
    std::string choice;
    for (const auto word : allowed) choice += (choice.empty() ? "" : ", ") + std::string(word);
    problem(key, "'" + escaped(*value) + "' is none of " + choice);
    return std::nullopt;
}

std::string CfgFile::where(std::string_view key) const {
    const auto last = std::find_if(keys_.rbegin(), keys_.rend(), [&](const CfgKey& k) { return k.name == key; });
    if (last == keys_.rend()) return name_ + ": ";
    if (last->line > file_lines_) return "command line: ";
    return name_ + ":" + std::to_string(last->line) + ": ";
}

void CfgFile::problem(std::string_view key, std::string_view what) {
    problems_.push_back(where(key) + std::string(key) + ": " + std::string(what));
}

}  // namespace caisson::toolstack
