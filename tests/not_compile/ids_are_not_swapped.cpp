// expect: could not convert|cannot convert|no known conversion
// A domain is not a device, whatever the numbers are.
#include "protocols/words.h"

void attach(caisson::DomainId, caisson::DeviceId);

void both(caisson::DomainId domain, caisson::DeviceId device) {
#ifdef MISUSE
    attach(device, domain);
#else
    attach(domain, device);
#endif
}
