// expect: no member named
// A peer's bytes are read only by a parser.
#include "protocols/words.h"

struct Request {
    std::uint32_t sector;
};
struct Sector {
    std::uint32_t raw;
};

std::uint32_t sector_of(caisson::Untrusted<Request> request) {
#ifdef MISUSE
    return request.sector;
#else
    return std::move(request).check([](const Request& r) { return Sector{r.sector}; }).raw;
#endif
}
