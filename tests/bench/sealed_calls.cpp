// What the sealed worker of a backend may ask of the kernel, a line each: "CALL", "CALL if" (with some arguments
// alone), "ring N" (an operation of its io_uring). Nothing is told twice: the code that seals workers runs here, and
// the libraries that would tell the kernel are these functions, which print.
#include <liburing.h>
#include <seccomp.h>

#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

#include "domains/catalogue.h"
#include "domains/sandbox/sandbox.h"
#include "ring/loop.h"

using namespace caisson;

extern "C" {

scmp_filter_ctx seccomp_init(std::uint32_t) {
    static int filter;
    return &filter;
}
void seccomp_release(scmp_filter_ctx) {}
int seccomp_attr_set(scmp_filter_ctx, scmp_filter_attr, std::uint32_t) { return 0; }
int seccomp_load(scmp_filter_ctx) { return 0; }
int seccomp_rule_add(scmp_filter_ctx, std::uint32_t action, int call, unsigned conditions, ...) {
    if (action != SCMP_ACT_ALLOW) return 0;  // it is answered with an error
    char* name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call);
    std::printf("%s%s\n", name, conditions > 0 ? " if" : "");
    std::free(name);
    return 0;
}

int io_uring_register(unsigned, unsigned what, const void* how, unsigned count) {
    if (what == IORING_REGISTER_RESTRICTIONS)
        for (const auto& one : std::span(static_cast<const io_uring_restriction*>(how), count))
            std::printf("ring %u\n", one.sqe_op);
    return 0;
}

}  // extern "C"

int main(int count, char** arguments) {
    for (const auto& entry : catalogue()) {
        if (count != 2 || entry.name != arguments[1]) continue;
        const WorkerPolicy policy = entry.backend.policy ? entry.backend.policy() : WorkerPolicy{};
        const auto loop = Loop::make({});
        return loop && (*loop)->restrict_operations(policy.operations) && filter_system_calls(policy, true) ? 0 : 1;
    }
    std::fprintf(stderr, "usage: sealed_calls vif | vbd | console\n");
    return 2;
}
