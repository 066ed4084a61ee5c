// expect: a parser returns another type than the wire's
// A parser that hands the wire struct back has proven nothing.
#include "protocols/words.h"

struct Request {
    std::uint32_t sector;
};
struct Sector {
    std::uint32_t raw;
};

auto parse(caisson::Untrusted<Request> request) {
#ifdef MISUSE
    return std::move(request).check([](const Request& r) { return r; });
#else
    return std::move(request).check([](const Request& r) { return Sector{r.sector}; });
#endif
}
