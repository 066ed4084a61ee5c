// expect: as 'this' argument|no matching member function
// check() takes the snapshot away: it is called on what is moved from, so nothing unchecked stays behind.
#include "protocols/words.h"

struct Request {
    std::uint32_t sector;
};
struct Sector {
    std::uint32_t raw;
};

Sector spend(caisson::Untrusted<Request> request) {
    auto parse = [](const Request& r) { return Sector{r.sector}; };
#ifdef MISUSE
    return request.check(parse);
#else
    return std::move(request).check(parse);
#endif
}
