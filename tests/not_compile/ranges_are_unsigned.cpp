// expect: no matching function
// fits() is the only range test; a signed limit would let a negative length through.
#include "protocols/words.h"

bool inside(std::uint32_t offset, std::uint32_t length) {
#ifdef MISUSE
    const int limit = 4096;
#else
    const std::uint32_t limit = 4096;
#endif
    return caisson::fits(offset, length, limit);
}
