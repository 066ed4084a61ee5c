// expect: no match for 'operator\[\]'|does not provide a subscript operator
// Reading through a view twice gives two answers, so a view cannot be read in place at all.
#include "ring/memory.h"

std::byte first_byte(caisson::SharedSpan shared) {
#ifdef MISUSE
    return shared[0];
#else
    std::byte copy{};
    return shared.copy_out(0, std::span(&copy, 1)) ? copy : std::byte{};
#endif
}
