// Whether this is a build under the thread sanitizer (GCC's; no preset uses clang's).
#pragma once

namespace caisson::test {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool under_thread_sanitizer = true;
#else
inline constexpr bool under_thread_sanitizer = false;
#endif

}  // namespace caisson::test
