// What followers of a run are told: a bounded queue of events with numbers. When it is full the
// oldest progress of running cells goes first, as nobody's result depends on it.

#include "director_parts.h"

#include "wire.h"

#define EVENTS_MAX 8192
#define EVENTS_A_MESSAGE 1024

static struct event *event_at(struct events *events, size_t i)
{
    return &events->items[(events->first + i) % events->room];
}

static void message_free(Mp__Event *message)
{
    mp__event__free_unpacked(message, NULL);
}

// Takes all progress out, if that makes room.
static void drop_intervals(struct events *events)
{
    size_t kept = 0;
    for (size_t i = 0; i < events->count; i++) {
        struct event event = *event_at(events, i);
        if (event.message->kind == MP__EVENT__KIND__INTERVAL)
            message_free(event.message);
        else
            *event_at(events, kept++) = event;
    }
    events->count = kept;
}

static void make_room(struct events *events)
{
    if (!events->items) {
        events->items = zmalloc(EVENTS_MAX * sizeof *events->items);
        events->room = EVENTS_MAX;
    }
    if (events->count < events->room)
        return;
    drop_intervals(events);
    // A quarter at a time, so that the work is spread.
    while (events->count > events->room - events->room / 4) {
        struct event *oldest = event_at(events, 0);
        events->lost_before = oldest->number + 1;
        message_free(oldest->message);
        events->first = (events->first + 1) % events->room;
        events->count--;
    }
}

static Mp__Event *event_new(struct run *run, Mp__Event__Kind kind)
{
    Mp__Event *message = zmalloc(sizeof *message);
    mp__event__init(message);
    message->kind = kind;
    message->wall_ns = clock_wall(run->director->clock);
    return message;
}

static void append(struct run *run, Mp__Event *message)
{
    struct events *events = &run->events;
    make_room(events);
    *event_at(events, events->count++) = (struct event){events->next++, message};
}

void events_result(struct run *run, Mp__Cell **cell_p)
{
    bool again = (*cell_p)->recheck || (*cell_p)->flow_check;
    Mp__Event *message = event_new(run, again ? MP__EVENT__KIND__RECHECK : MP__EVENT__KIND__RESULT);
    message->cell = *cell_p;
    *cell_p = NULL;
    append(run, message);
}

void events_interval(struct run *run, uint32_t cell, const Mp__Interval *interval)
{
    Mp__Event *message = event_new(run, MP__EVENT__KIND__INTERVAL);
    message->cell = run_cell_new(run, cell, MP__CELL_STATE__CELL_RUNNING, NULL);
    message->interval = (Mp__Interval *)wire_copy(&interval->base);
    append(run, message);
}

void events_agent(struct run *run, const char *agent, const char *text)
{
    Mp__Event *message = event_new(run, MP__EVENT__KIND__AGENT);
    message->agent = strdup(agent);
    message->text = strdup(text);
    append(run, message);
}

void events_release(struct events *events)
{
    for (size_t i = 0; i < events->count; i++)
        message_free(event_at(events, i)->message);
    free(events->items);
    memset(events, 0, sizeof *events);
}

// First event with a number of at least `since`.
static size_t position(struct events *events, uint64_t since)
{
    size_t low = 0, high = events->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (event_at(events, middle)->number < since)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void events_answer(struct run *run, uint64_t since, uint32_t limit, Mp__EventsAnswer *answer)
{
    struct events *events = &run->events;
    director_t *director = run->director;
    if (!director->answer)
        director->answer = zmalloc(EVENTS_A_MESSAGE * sizeof *director->answer);
    if (limit == 0 || limit > EVENTS_A_MESSAGE)
        limit = EVENTS_A_MESSAGE;
    run_refresh(run);
    mp__events_answer__init(answer);
    answer->info = run->info;
    answer->events = director->answer;
    answer->has_gap = answer->gap = since < events->lost_before;
    answer->next = since < events->next ? events->next : since;
    size_t used = wire_packed_size(&run->info->base);
    for (size_t i = position(events, since); i < events->count; i++) {
        struct event *event = event_at(events, i);
        used += wire_packed_size(&event->message->base) + 8;
        if (answer->n_events == limit || (answer->n_events > 0 && used > WIRE_PART_BYTES)) {
            answer->next = event->number;
            return;
        }
        answer->events[answer->n_events++] = event->message;
    }
}
