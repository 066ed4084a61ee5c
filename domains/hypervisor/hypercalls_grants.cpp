#include "domains/hypervisor/hypercalls_call.h"

namespace caisson::hypervisor {

namespace {
caisson::Access access_of(std::uint16_t read_only) {
    return read_only != 0 ? caisson::Access::read_only : caisson::Access::read_write;
}
}  // namespace

Answer Hypercalls::share(Call& call, const local::ShareRequest& request) {
    const auto to = peer(call, request.peer);
    if (!to) return call.refused(to.error());
    if (domains_.at(to->id).dying) return call.refused(deny_peer(ESRCH, "the domain is dying", request.peer));
    if (const Status room = room_for_descriptors(call.self); !room) return call.refused(room.error());
    auto shared = grants_.share(call.from, *to, request.pages, access_of(request.read_only));
    if (!shared) return call.refused(shared.error());
    Answer answer =
        call.done(local::ShareReply{.head = {}, .first = shared->first.raw, .zero = 0}, std::move(shared->pages));
    answer.undo = [this, from = call.from, first = shared->first] { (void)grants_.end(from, first, false); };
    return answer;
}

Answer Hypercalls::activate(Call& call, const local::RefRequest& request) {
    const auto done = grants_.activate(call.from, GrantRef(request.ref));
    return done ? call.done() : call.refused(done.error());
}

Answer Hypercalls::reclaim(Call& call, const local::RefRequest& request) {
    auto found = grants_.reclaim(call.from, GrantRef(request.ref));
    if (!found) return call.refused(found.error());
    return call.done(
        local::ReclaimReply{.head = {},
                            .peer = found->peer.id.raw,
                            .read_only = static_cast<std::uint16_t>(found->access == caisson::Access::read_only),
                            .pages = found->pages},
        std::move(found->memory));
}

Answer Hypercalls::end(Call& call, const local::RefRequest& request) {
    const auto tried = grants_.end(call.from, GrantRef(request.ref), call.only == nullptr);
    if (!tried) return call.refused(tried.error());
    return call.done(local::EndReply{
        .head = {}, .still_mapped = static_cast<std::uint32_t>(*tried == End::still_mapped), .zero = 0});
}

Answer Hypercalls::map(Call& call, const local::MapRequest& request) {
    if (request.count == 0 || request.count > local::refs_per_map)
        return call.refused(deny(EINVAL, "references of one map"));
    const auto granter = peer(call, request.peer);
    if (!granter) return call.refused(granter.error());
    auto mapped =
        grants_.map(call.from, *granter, std::span(request.refs).first(request.count), access_of(request.read_only));
    if (!mapped) return call.refused(mapped.error());
    local::MapReply reply{};
    reply.count = request.count;
    std::transform(mapped->refs.begin(), mapped->refs.end(), reply.refs, [](const Grants::MappedRef& ref) {
        return local::MappedRef{.region = ref.region.raw, .page = ref.page, .index = ref.index};
    });
    Answer answer = call.done(reply);
    answer.descriptors = std::move(mapped->regions);
    answer.undo = [this, from = call.from, fresh = std::move(mapped->fresh)] { grants_.unmap(from, fresh); };
    return answer;
}

Answer Hypercalls::unmap(Call& call, const local::UnmapRequest& request) {
    if (request.count > local::regions_per_unmap) return call.refused(deny(EINVAL, "regions of one unmap"));
    grants_.unmap(call.from, std::span(request.regions).first(request.count));
    return call.done();
}

Answer Hypercalls::fetch(Call& call, const local::FetchRequest& request) {
    const auto granter = peer(call, request.peer);
    if (!granter) return call.refused(granter.error());
    auto fetched = grants_.fetch(call.self, *granter, GrantRef(request.ref));
    if (!fetched) return call.refused(fetched.error());
    return call.done(local::FetchReply{.head = {},
                                       .generation = granter->generation,
                                       .first = fetched->first,
                                       .pages = fetched->pages,
                                       .status = fetched->status},
                     std::move(fetched->memory));
}

Answer Hypercalls::status(Call& call, const local::PeerRequest& request) {
    const auto granter = peer(call, request.peer);
    if (!granter) return call.refused(granter.error());
    auto status = grants_.status_page(call.self, *granter);
    if (!status) return call.refused(status.error());
    return call.done(local::StatusReply{.head = {}, .generation = granter->generation, .entries = status->entries},
                     std::move(status->page));
}

}  // namespace caisson::hypervisor
