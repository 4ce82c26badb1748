// Questions to the ZAP handler: frames with one byte of length before each. One key is known; only
// a proper question with it is answered with 200.

#include <czmq.h>

#include "fuzz.h"
#include "log.h"
#include "zap.h"

static zap_t *handler;
static zsock_t *asker;

static void close_handler(void)
{
    zsock_destroy(&asker);
    zap_destroy(&handler);
}

static void open_handler(void)
{
    struct zap_entry entry = {.role = WIRE_AGENT, .label = "known"};
    memset(entry.key, 'k', sizeof entry.key);
    zsys_init();
    log_setup("fuzz", LOG_ERROR, LOG_TEXT);
    handler = zap_new();
    HOLDS(handler);
    zap_put(handler, &entry);
    asker = zsock_new_req("inproc://zeromq.zap.01");
    HOLDS(asker);
    zsock_set_rcvtimeo(asker, 10000);
    atexit(close_handler);
}

static bool contains(const uint8_t *data, size_t size, const char *word)
{
    size_t length = strlen(word);
    for (size_t i = 0; i + length <= size; i++)
        if (memcmp(data + i, word, length) == 0)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *whole = data;
    size_t whole_size = size;
    if (!handler)
        open_handler();
    zmsg_t *question = zmsg_new();
    while (size > 0) {
        size_t length = data[0] < size - 1 ? data[0] : size - 1;
        zmsg_addmem(question, data + 1, length);
        data += 1 + length;
        size -= 1 + length;
    }
    if (zmsg_size(question) == 0)
        zmsg_addmem(question, "", 0);
    HOLDS(zmsg_send(&question, asker) == 0);
    zmsg_t *answer;
    do
        answer = zmsg_recv(asker);
    while (!answer && errno == EINTR); // libFuzzer's own alarm
    HOLDS(answer && zmsg_size(answer) == 6);
    zframe_t *code = zmsg_first(answer);
    for (int i = 0; i < 2; i++)
        code = zmsg_next(answer);
    if (zframe_streq(code, "200"))
        HOLDS(contains(whole, whole_size, "CURVE") &&
              contains(whole, whole_size, "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk") &&
              contains(whole, whole_size, "agents"));
    zmsg_destroy(&answer);
    return 0;
}
