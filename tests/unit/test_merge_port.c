// Both ends' findings about a port: what is claimed of arrival, and the sentence that proves it.

#include "meshtest.h"

#include <stdlib.h>
#include <string.h>

#include "merge.h"

static uint32_t source_port = 40001;

struct scene {
    Mp__LightOutcome near, far;
    Mp__HalfOpen contact, *contacts[1];
    bool target, silent; // silent: the listening end did not report
};

static void open_scene(struct scene *it, Mp__Observed observed, Mp__Arrived arrived)
{
    memset(it, 0, sizeof *it);
    mp__light_outcome__init(&it->near);
    mp__light_outcome__init(&it->far);
    mp__half_open__init(&it->contact);
    it->near.has_observed = true;
    it->near.observed = observed;
    it->near.source_ports = &source_port;
    it->near.n_source_ports = 1;
    it->far.has_far = it->far.far = it->far.has_arrived = it->far.has_listener = true;
    it->far.arrived = arrived;
    it->far.listener = MP__LISTENER__LISTENER_AGENT;
    it->contacts[0] = &it->contact;
    it->contact.seen_from = (char *)"10.0.0.1";
    it->contact.port = source_port;
    it->far.half_open = it->contacts;
}

static Mp__Cell *merge(struct scene *it)
{
    Mp__Cell *cell = calloc(1, sizeof *cell);
    mp__cell__init(cell);
    merge_port(&it->near, it->silent || it->target ? NULL : &it->far,
        &(struct merge_names){"office-4", "db-2", it->target}, cell);
    return cell;
}

static void expect(
    struct scene *it, const char *observed, const char *arrived, const char *evidence)
{
    Mp__Cell *cell = merge(it);
    assert_int_equal(cell->state, MP__CELL_STATE__OK);
    assert_string_equal(cell->observed, observed);
    assert_string_equal(cell->arrived, arrived);
    if (!strstr(cell->evidence, evidence))
        fail_msg("'%s' is not in '%s'", evidence, cell->evidence);
    mp__cell__free_unpacked(cell, NULL);
}

static void the_nonce_proves_arrival_and_where_it_was_seen_from(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_OPEN, MP__ARRIVED__ARRIVED_YES);
    it.far.seen_from = (char *)"10.30.0.4";
    expect(&it, "open", "yes", "nonce answered by db-2, seen from 10.30.0.4");
    // An open port arrived, whatever became of the other report.
    it.silent = true;
    expect(&it, "open", "yes", "nonce answered");
}

static void a_connection_begun_from_the_probes_port_arrived(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_FILTERED, MP__ARRIVED__ARRIVED_NO);
    it.far.n_half_open = 1;
    expect(&it, "filtered", "yes", "db-2 saw the SYN from 10.0.0.1");
    // What made the far end unsure is settled by the source port.
    it.far.arrived = MP__ARRIVED__ARRIVED_UNKNOWN;
    it.far.reason = (char *)"packets vanished";
    Mp__Cell *cell = merge(&it);
    assert_string_equal(cell->arrived, "yes");
    assert_null(strstr(cell->evidence, "vanished"));
    mp__cell__free_unpacked(cell, NULL);
}

static void a_connection_from_another_port_makes_silence_no_proof(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_FILTERED, MP__ARRIVED__ARRIVED_NO);
    it.far.n_half_open = 1;
    it.contact.port = 50000;
    expect(&it, "filtered", "unknown", "may have been others'");
}

// A host that translates for others has an agent of its own.
static void another_agents_connection_is_its_own_unless_it_has_the_probes_port(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_FILTERED, MP__ARRIVED__ARRIVED_NO);
    it.far.n_half_open = 1;
    it.contact.has_others = it.contact.others = true;
    expect(&it, "filtered", "unknown", "may have been others'");
    it.contact.port = 50000;
    expect(&it, "filtered", "no", "nothing arrived at db-2");
}

static void silence_at_both_ends_is_no_arrival(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_FILTERED, MP__ARRIVED__ARRIVED_NO);
    expect(&it, "filtered", "no", "nothing arrived at db-2");
}

static void what_a_service_took_is_its_own_but_silence_there_is_silence(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_ACCEPTED, MP__ARRIVED__ARRIVED_NO);
    it.far.listener = MP__LISTENER__LISTENER_SERVICE;
    expect(&it, "accepted", "unknown", "a service holds the port");
    it.near.observed = MP__OBSERVED__OBSERVED_FILTERED;
    expect(&it, "filtered", "no", "nothing arrived at db-2");
}

static void where_a_translation_led_a_probe_is_told(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_FILTERED, MP__ARRIVED__ARRIVED_YES);
    it.far.seen_from = (char *)"10.0.0.1";
    it.far.reason = (char *)"translated to udp/54";
    expect(&it, "filtered", "yes", "db-2 saw it arrive from 10.0.0.1, translated to udp/54");
}

static void the_last_hop_is_evidence_of_what_did_not_arrive(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_FILTERED, MP__ARRIVED__ARRIVED_NO);
    it.near.last_hop = (char *)"10.1.0.254";
    it.near.has_last_hop_ttl = true;
    it.near.last_hop_ttl = 3;
    expect(&it, "filtered", "no", "the last hop that answers on the way is 10.1.0.254, at 3");
    Mp__Cell *cell = merge(&it);
    assert_string_equal(cell->last_hop, "10.1.0.254");
    it.far.arrived = MP__ARRIVED__ARRIVED_YES;
    Mp__Cell *leak = merge(&it);
    assert_null(strstr(leak->evidence, "hop"));
    mp__cell__free_unpacked(cell, NULL);
    mp__cell__free_unpacked(leak, NULL);
}

static void a_report_that_is_missing_leaves_it_unknown_and_nobody_alive(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_FILTERED, MP__ARRIVED__ARRIVED_NO);
    it.silent = true;
    expect(&it, "filtered", "unknown", "db-2 did not report");
    Mp__Cell *cell = merge(&it);
    assert_true(cell->has_alive && !cell->alive);
    mp__cell__free_unpacked(cell, NULL);
}

static void icmp_is_told_with_type_code_and_sender(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_REJECTED, MP__ARRIVED__ARRIVED_NO);
    it.near.has_icmp_type = it.near.has_icmp_code = true;
    it.near.icmp_type = 3;
    it.near.icmp_code = 13;
    it.near.icmp_from = (char *)"10.1.0.254";
    it.near.error = (char *)"EHOSTUNREACH";
    expect(&it, "rejected", "no", "ICMP 3/13 from 10.1.0.254 (EHOSTUNREACH)");
}

static void a_target_is_alive_only_if_it_answered_something(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_FILTERED, MP__ARRIVED__ARRIVED_NO);
    it.target = true;
    Mp__Cell *cell = merge(&it);
    assert_false(cell->alive);
    mp__cell__free_unpacked(cell, NULL);
    it.near.has_alive = it.near.alive = true;
    it.near.alive_how = (char *)"it answered on tcp/80";
    expect(&it, "filtered", "unknown", "no agent at db-2");
    cell = merge(&it);
    assert_true(cell->alive);
    assert_string_equal(cell->alive_how, "it answered on tcp/80");
    mp__cell__free_unpacked(cell, NULL);
}

static void what_an_owner_forbids_is_skipped(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_FILTERED, MP__ARRIVED__ARRIVED_NO);
    it.far.outcome = MP__OUTCOME__OUTCOME_SKIPPED;
    it.far.reason = (char *)"guard: peers: no";
    Mp__Cell *cell = merge(&it);
    assert_int_equal(cell->state, MP__CELL_STATE__SKIPPED);
    assert_string_equal(cell->reason, "guard: peers: no");
    assert_null(cell->observed);
    mp__cell__free_unpacked(cell, NULL);
}

static void what_cannot_be_sent_here_is_unsupported(void **state)
{
    (void)state;
    struct scene it;
    open_scene(&it, MP__OBSERVED__OBSERVED_UNSUPPORTED, MP__ARRIVED__ARRIVED_UNKNOWN);
    Mp__Cell *cell = merge(&it);
    assert_int_equal(cell->state, MP__CELL_STATE__UNSUPPORTED);
    assert_true(*cell->reason);
    mp__cell__free_unpacked(cell, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nonce_proves_arrival_and_where_it_was_seen_from),
        cmocka_unit_test(a_connection_begun_from_the_probes_port_arrived),
        cmocka_unit_test(a_connection_from_another_port_makes_silence_no_proof),
        cmocka_unit_test(another_agents_connection_is_its_own_unless_it_has_the_probes_port),
        cmocka_unit_test(silence_at_both_ends_is_no_arrival),
        cmocka_unit_test(what_a_service_took_is_its_own_but_silence_there_is_silence),
        cmocka_unit_test(where_a_translation_led_a_probe_is_told),
        cmocka_unit_test(the_last_hop_is_evidence_of_what_did_not_arrive),
        cmocka_unit_test(a_report_that_is_missing_leaves_it_unknown_and_nobody_alive),
        cmocka_unit_test(icmp_is_told_with_type_code_and_sender),
        cmocka_unit_test(a_target_is_alive_only_if_it_answered_something),
        cmocka_unit_test(what_an_owner_forbids_is_skipped),
        cmocka_unit_test(what_cannot_be_sent_here_is_unsupported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
