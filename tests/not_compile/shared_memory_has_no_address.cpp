// expect: is private|private member
// Nobody outside ring/ holds a pointer into memory that a peer can change.
#include "ring/memory.h"

std::byte first_byte(caisson::SharedSpan shared) {
#ifdef MISUSE
    return *shared.base_;
#else
    std::byte copy{};
    return shared.copy_out(0, std::span(&copy, 1)) ? copy : std::byte{};
#endif
}
