// Both halves of the vendor's device in one process: a hypervisor in a thread, two domains, their controllers in one
// event loop. Reads all channels of the sensor through the ring and prints them.
#include <cstdio>

#include "catalogue.h"
#include "domains/controller/controller.h"
#include "tests/support/local_xen.h"

using namespace caisson;

namespace {

std::string home(DomainId domain) { return "/local/domain/" + std::to_string(domain.raw); }

// What a toolstack writes when it attaches a device: each end's directory, owned by that end, readable for the other.
Status attach(Store& dom0, DomainId backend, DomainId frontend) {
    const std::string back = home(backend) + "/backend/vsensor/" + std::to_string(frontend.raw) + "/0";
    const std::string front = home(frontend) + "/device/vsensor/0";
    const auto directory = [&](const std::string& path, DomainId owner, DomainId reader) -> Status {
        TRY(dom0.make_directory(path));
        return dom0.set_permissions(path, {{.domain = owner}, {.domain = reader, .read = true}});
    };
    return dom0.transaction([&]() -> Status {
        TRY(directory(back, backend, frontend));
        TRY(dom0.write(back + "/frontend", front));
        TRY(dom0.write(back + "/frontend-id", std::to_string(frontend.raw)));
        TRY(dom0.write(back + "/online", "1"));
        TRY(dom0.write(back + "/state", "1"));
        TRY(directory(front, frontend, backend));
        TRY(dom0.write(front + "/backend", back));
        TRY(dom0.write(front + "/backend-id", std::to_string(backend.raw)));
        return dom0.write(front + "/state", "1");
    });
}

Status run() {
    test::LocalXen xen;
    auto back = xen.domain(), front = xen.domain();
    auto dom0 = TRY(Store::open(xen.dom0().xenstored));

    auto loop = TRY(Loop::make());
    const auto back_workers = make_inline_workers(*loop), front_workers = make_inline_workers(*loop);
    auto back_store = TRY(Store::open(back.xenstored)), front_store = TRY(Store::open(front.xenstored));
    const Catalogue catalogue(&sensor::row, 1);
    Controller devd(*loop, *back.hypervisor, back_store, *back_workers,
                    {.backends = true, .catalogue = catalogue, .stats_directory = xen.directory()});
    Controller frontd(*loop, *front.hypervisor, front_store, *front_workers,
                      {.frontends = true, .catalogue = catalogue, .stats_directory = xen.directory()});
    TRY(devd.start());
    TRY(frontd.start());
    TRY(attach(dom0, back.id, front.id));

    for (std::uint32_t channel = 0; channel < sensor::BackendControl::channels; ++channel) {
        const std::string node = home(front.id) + "/device/vsensor/0/reading-" + std::to_string(channel);
        std::optional<std::string> reading;
        while (!(reading = TRY(dom0.read(node)))) loop->turn(std::chrono::milliseconds(100));
        std::printf("channel %u: %s degrees\n", channel, reading->c_str());
    }
    devd.stop();
    frontd.stop();
    while (!devd.idle() || !frontd.idle()) loop->turn(std::chrono::milliseconds(100));
    return {};
}

}  // namespace

int main() {
    const Status done = run();
    if (!done) std::fprintf(stderr, "sensor: %s\n", done.error().message().c_str());
    return done ? 0 : 1;
}
