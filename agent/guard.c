#include "guard.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "light.h"
#include "units.h"

// Load that drains after a permitted duration is no breach of it.
#define DRAIN_NS (5 * INT64_C(1000000000))

void guard_defaults(struct guard *guard)
{
    memset(guard, 0, sizeof *guard);
    guard->duration_ns = GUARD_DURATION_DEFAULT_NS;
    guard->tests = GUARD_TESTS_DEFAULT;
}

bool guard_peer_allowed(const struct guard *guard, const char *address)
{
    uint8_t bytes[16];
    if (inet_pton(AF_INET, address, bytes) != 1 && inet_pton(AF_INET6, address, bytes) != 1)
        return false;
    for (size_t i = 0; i < guard->peer_count; i++)
        if (cidr_contains(&guard->peers[i], address))
            return true;
    return guard->peer_count == 0;
}

// ------------------------------------------------------------------------------------- the rules

static uint64_t least(uint64_t limit, uint64_t guard)
{
    return limit == 0 || guard < limit ? guard : limit;
}

static bool rate_allows(const struct guard *guard, struct probe_order *order, char *reason)
{
    char asked[UNITS_TEXT_SIZE], allowed[UNITS_TEXT_SIZE];
    const struct testspec *spec = &order->spec;
    if (guard->rate_bps == 0)
        return true;
    if (!spec->bitrate_max && spec->bitrate_bps > guard->rate_bps) {
        snprintf(reason, GUARD_TEXT_SIZE,
            "guard: rate: %s is more than the %s that this host's owner allows",
            units_word_rate(spec->bitrate_bps, asked), units_word_rate(guard->rate_bps, allowed));
        return false;
    }
    if (spec->bitrate_max || spec->bitrate_bps == 0)
        order->cap_bps = least(order->cap_bps, guard->rate_bps);
    // A quarter more: bursts of a sender that keeps to the rate are no breach.
    order->limit_bps = least(order->limit_bps, guard->rate_bps + guard->rate_bps / 4 + 1);
    return true;
}

static bool duration_allows(const struct guard *guard, const struct testspec *spec, char *reason)
{
    char asked[UNITS_TEXT_SIZE], allowed[UNITS_TEXT_SIZE];
    if (spec->duration_ns <= guard->duration_ns)
        return true;
    snprintf(reason, GUARD_TEXT_SIZE,
        "guard: duration: %s is more than the %s that this host's owner allows",
        units_word_duration(spec->duration_ns, asked),
        units_word_duration(guard->duration_ns, allowed));
    return false;
}

static bool bytes_allow(const struct guard *guard, struct probe_order *order, char *reason)
{
    char asked[UNITS_TEXT_SIZE], allowed[UNITS_TEXT_SIZE];
    const struct testspec *spec = &order->spec;
    if (guard->bytes == 0)
        return true;
    if (!spec->bitrate_max && spec->bitrate_bps > 0) {
        double volume = (double)spec->bitrate_bps / 8 * ((double)spec->duration_ns / 1e9);
        volume *= spec->bidir ? 2 : 1;
        if (volume > (double)guard->bytes) {
            snprintf(reason, GUARD_TEXT_SIZE,
                "guard: bytes: %s are more than the %s that this host's owner allows a test",
                units_format_bytes(volume, asked),
                units_format_bytes((double)guard->bytes, allowed));
            return false;
        }
    }
    order->limit_bytes = least(order->limit_bytes, guard->bytes);
    return true;
}

static bool peer_allows(const struct guard *guard, const char *address, char *reason)
{
    if (guard_peer_allowed(guard, address))
        return true;
    snprintf(reason, GUARD_TEXT_SIZE,
        "guard: peers: %.64s is no peer that this host's owner allows", address);
    return false;
}

bool guard_admit(const struct guard *guard, struct probe_order *order, unsigned running,
    char reason[GUARD_TEXT_SIZE])
{
    if (running >= guard->tests) {
        snprintf(reason, GUARD_TEXT_SIZE,
            "guard: tests: %u bandwidth tests run here already, and this host's owner allows %u",
            running, guard->tests);
        return false;
    }
    if (!peer_allows(guard, order->peer_address, reason) ||
        !duration_allows(guard, &order->spec, reason) || !rate_allows(guard, order, reason) ||
        !bytes_allow(guard, order, reason))
        return false;
    int64_t most_ns = guard->duration_ns + testspec_omit_max_ns(&order->spec) + DRAIN_NS;
    if (order->limit_ns > most_ns)
        order->limit_ns = most_ns;
    return true;
}

bool guard_admit_light(const struct guard *guard, const struct testspec *spec, size_t probed,
    char reason[GUARD_TEXT_SIZE])
{
    char asked[UNITS_TEXT_SIZE], allowed[UNITS_TEXT_SIZE];
    unsigned datagrams = guard->spin ? 1 + LIGHT_WARM : 1;
    double rate_bps = spec->probe_rate * (double)probed * datagrams * LIGHT_SIZE * 8;
    if (!duration_allows(guard, spec, reason))
        return false;
    if (guard->rate_bps == 0 || rate_bps <= (double)guard->rate_bps)
        return true;
    snprintf(reason, GUARD_TEXT_SIZE,
        "guard: rate: probes of %s are more than the %s that this host's owner allows",
        units_format_rate(rate_bps, asked), units_word_rate(guard->rate_bps, allowed));
    return false;
}

void guard_words(const struct guard *guard, char text[GUARD_TEXT_SIZE])
{
    char rate[UNITS_TEXT_SIZE] = "any", duration[UNITS_TEXT_SIZE], bytes[UNITS_TEXT_SIZE] = "any";
    char peers[32] = "any";
    if (guard->rate_bps)
        units_word_rate(guard->rate_bps, rate);
    if (guard->bytes)
        units_format_bytes((double)guard->bytes, bytes);
    if (guard->peer_count)
        snprintf(peers, sizeof peers, "%zu network%s", guard->peer_count,
            guard->peer_count == 1 ? "" : "s");
    snprintf(text, GUARD_TEXT_SIZE, "peers %s, rate %s, duration %s, bytes %s, tests %u%s", peers,
        rate, units_word_duration(guard->duration_ns, duration), bytes, guard->tests,
        guard->spin ? ", spin" : "");
}
