// The only program of a service VM's image. As PID 1 it is init; under the names that the kernel calls for the end it
// asks PID 1 for that; with a word it is a controller, a worker, or the check of a recipe at build time.
#include <unistd.h>

#include <cstdio>
#include <string_view>

#include "domains/catalogue.h"
#include "domains/controller/controller.h"
#include "domains/service_vm/init.h"
#include "domains/worker/worker.h"
#include "ring/text_file.h"

using namespace caisson;

// Nothing is loaded at run time: the hosts that would load a library find none, and say so. The linker puts these in
// the place of the C library's (--wrap), which would warn of what a static program cannot do.
// NOLINTBEGIN(bugprone-reserved-identifier): the linker makes up these names
extern "C" {
void* __wrap_dlopen(const char*, int) { return nullptr; }
void* __wrap_dlsym(void*, const char*) { return nullptr; }
char* __wrap_dlerror() {
    static char none[] = "this program loads no libraries";
    return none;
}
}
// NOLINTEND(bugprone-reserved-identifier)

namespace {

constexpr int worker_control = 3;  // as spawn_isolated() leaves it

int complain(const Error& error) {
    Log("caisson").say(error.message());
    return 1;
}

int controller(Role role, std::string_view pulse_pipe) {
    ControllerOptions options;
    (role == Role::backend ? options.backends : options.frontends) = true;
    options.catalogue = catalogue();
    if (const auto pipe = parse_decimal<unsigned>(pulse_pipe)) {
        const int fd = static_cast<int>(*pipe);
        ::fcntl(fd, F_SETFD, FD_CLOEXEC);
        options.pulse = [fd] { (void)!::write(fd, "", 1); };
    }
    const auto done = run_controller(options);
    return done ? 0 : complain(done.error());
}

// Exit codes: 0 a sound recipe, 2 not, and why.
int check(const char* file) {
    const auto text = read_text(file);
    if (!text) return complain(text.error());
    const auto recipe = service_vm::parse_recipe(*text, file);
    if (recipe) return 0;
    std::fprintf(stderr, "%s\n", recipe.error().message().c_str());
    return 2;
}

}  // namespace

int main(int count, char** arguments) {
    const std::string_view path = arguments[0], word = count > 1 ? arguments[1] : "";
    if (path.ends_with("/poweroff")) return service_vm::ask_for_end(service_vm::End::power_off);
    if (path.ends_with("/reboot")) return service_vm::ask_for_end(service_vm::End::restart);
    if (word == "worker") return run_worker(worker_control, catalogue());  // PID 1, too: of a namespace of its own
    if (::getpid() == 1) service_vm::run_init();
    if (word == "devd" || word == "frontd")
        return controller(word == "devd" ? Role::backend : Role::frontend, count > 2 ? arguments[2] : "");
    if (word == "check" && count == 3) return check(arguments[2]);
    std::fprintf(stderr, "usage: caisson-vm check RECIPE; all else is done inside a service VM's image\n");
    return 2;
}
