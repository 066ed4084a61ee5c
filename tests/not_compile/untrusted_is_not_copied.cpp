// expect: deleted
// One snapshot, spent once: a copy could be checked while the original is used.
#include "protocols/words.h"

struct Request {
    std::uint32_t sector;
};

caisson::Untrusted<Request> pass_on(caisson::Untrusted<Request> request) {
#ifdef MISUSE
    caisson::Untrusted<Request> second = request;
    return second;
#else
    return request;
#endif
}
