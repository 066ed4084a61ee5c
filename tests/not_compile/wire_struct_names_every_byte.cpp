// expect: constraints not satisfied|constraint failure|does not satisfy
// Padding would carry our stack to a stranger (XSA-216).
#include "protocols/words.h"

#ifdef MISUSE
struct Request {
    std::uint8_t operation;
    std::uint32_t sector;
};
#else
struct Request {
    std::uint8_t operation;
    std::uint8_t reserved[3];
    std::uint32_t sector;
};
#endif

caisson::Untrusted<Request> from(const Request& bytes) { return caisson::Untrusted<Request>(bytes); }
