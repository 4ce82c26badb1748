#ifndef MESHPERF_UNITS_H
#define MESHPERF_UNITS_H

// Words for quantities and back. Parsers accept exactly the documented forms and the whole word,
// return 0, MESH_E_SYNTAX or MESH_E_RANGE, and leave the output untouched on failure. Numbers are
// decimal with an optional fraction; signs, blanks inside, exponents, hex and locale are refused.

#include <stddef.h>
#include <stdint.h>

// "500ms" "10s" "5m" "1h" "250us"; a number without a unit is refused. Rounded to nanoseconds.
int units_duration_ns(const char *word, int64_t *duration_ns) __attribute__((warn_unused_result));

// "100M" "2.5G" "64k" "100Mbit/s" "9600": thousands, either case; bits per second.
int units_rate_bps(const char *word, uint64_t *rate_bps) __attribute__((warn_unused_result));

// "1400" "64K" "10G": 1024s, either case; bytes.
int units_size_bytes(const char *word, uint64_t *size_bytes) __attribute__((warn_unused_result));

// "5%" "0.1%"; a ratio (0.05). The per cent sign is required.
int units_percent(const char *word, double *ratio) __attribute__((warn_unused_result));

// A whole number in decimal within [minimum, maximum].
int units_count(const char *word, uint64_t minimum, uint64_t maximum, uint64_t *count)
    __attribute__((warn_unused_result));

// For people, at most three significant digits, into `text` which is also returned:
// "94.1 Mbit/s", "1.25 ms", "10.3 MiB", "0.1 %".
#define UNITS_TEXT_SIZE 32
const char *units_format_rate(double rate_bps, char text[UNITS_TEXT_SIZE]);
const char *units_format_seconds(double seconds, char text[UNITS_TEXT_SIZE]);
const char *units_format_bytes(double bytes, char text[UNITS_TEXT_SIZE]);
const char *units_format_ratio(double ratio, char text[UNITS_TEXT_SIZE]);

// The shortest exact form that the parsers read back: "10s", "1500ms", "100M".
const char *units_word_duration(int64_t duration_ns, char text[UNITS_TEXT_SIZE]);
const char *units_word_rate(uint64_t rate_bps, char text[UNITS_TEXT_SIZE]);

#endif
