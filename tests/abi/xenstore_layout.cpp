// The local xenstored's words against xs_wire.h: operations, header, limits, and the names of errors.
#include <catch2/catch.hpp>
#include <cerrno>

#include "domains/hypervisor/xenstore_wire.h"
#include "tests/abi/xen_ring_headers.h"

namespace caisson::hypervisor {
namespace {

constexpr bool is(StoreOp ours, xsd_sockmsg_type xens) {
    return static_cast<std::uint32_t>(ours) == static_cast<std::uint32_t>(xens);
}
static_assert(is(StoreOp::control, XS_CONTROL) && is(StoreOp::directory, XS_DIRECTORY) && is(StoreOp::read, XS_READ) &&
              is(StoreOp::get_perms, XS_GET_PERMS) && is(StoreOp::watch, XS_WATCH) &&
              is(StoreOp::unwatch, XS_UNWATCH) && is(StoreOp::transaction_start, XS_TRANSACTION_START) &&
              is(StoreOp::transaction_end, XS_TRANSACTION_END) && is(StoreOp::introduce, XS_INTRODUCE) &&
              is(StoreOp::release, XS_RELEASE) && is(StoreOp::get_domain_path, XS_GET_DOMAIN_PATH) &&
              is(StoreOp::write, XS_WRITE) && is(StoreOp::mkdir, XS_MKDIR) && is(StoreOp::rm, XS_RM) &&
              is(StoreOp::set_perms, XS_SET_PERMS) && is(StoreOp::watch_event, XS_WATCH_EVENT) &&
              is(StoreOp::error, XS_ERROR) && is(StoreOp::is_domain_introduced, XS_IS_DOMAIN_INTRODUCED) &&
              is(StoreOp::resume, XS_RESUME) && is(StoreOp::set_target, XS_SET_TARGET) &&
              is(StoreOp::reset_watches, XS_RESET_WATCHES) && is(StoreOp::directory_part, XS_DIRECTORY_PART));

static_assert(sizeof(StoreHeader) == sizeof(xsd_sockmsg) &&
              offsetof(StoreHeader, type) == offsetof(xsd_sockmsg, type) &&
              offsetof(StoreHeader, request) == offsetof(xsd_sockmsg, req_id) &&
              offsetof(StoreHeader, transaction) == offsetof(xsd_sockmsg, tx_id) &&
              offsetof(StoreHeader, length) == offsetof(xsd_sockmsg, len));
static_assert(store_payload_max == XENSTORE_PAYLOAD_MAX && store_absolute_path_max == XENSTORE_ABS_PATH_MAX &&
              store_relative_path_max == XENSTORE_REL_PATH_MAX);

}  // namespace

TEST_CASE("every error that xenstore's wire knows has its name there") {
    for (const struct ::xsd_errors& known : ::xsd_errors) {
        INFO(known.errstring);
        CHECK(store_error_name(known.errnum) == known.errstring);
    }
    CHECK(store_error_name(EXDEV) == "EINVAL");
}

}  // namespace caisson::hypervisor
