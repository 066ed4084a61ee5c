// expect: deleted
// Two owners would end one grant twice, and the second end might hit whoever got the reference next.
#include "ring/hypervisor.h"

caisson::SharedPages keep(caisson::SharedPages pages) {
#ifdef MISUSE
    caisson::SharedPages second = pages;
    return second;
#else
    return pages;
#endif
}
