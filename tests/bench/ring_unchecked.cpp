// ring_ours.cpp again, without the checks: what safety costs. Another namespace, so that both can be linked.
#define CAISSON_RING_UNCHECKED_FOR_MEASUREMENT
#define caisson caisson_unchecked
#define BENCH_MAKE make_unchecked
#define BENCH_PREFIX "unchecked_"
#include "tests/bench/ring_ours.cpp"  // NOLINT(bugprone-suspicious-include)
