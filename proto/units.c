#include "units.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "clock.h"
#include "errors.h"

struct unit {
    const char *word;
    double factor;
};

// Reads digits[.digits] at the start of the word. No sign, blank, exponent or locale.
static const char *read_number(const char *word, double *number)
{
    const char *c = word;
    double value = 0, weight = 1;
    unsigned digits = 0;
    for (; *c >= '0' && *c <= '9'; c++, digits++)
        value = value * 10 + (*c - '0');
    if (digits == 0)
        return NULL;
    if (*c == '.') {
        const char *first = ++c;
        for (; *c >= '0' && *c <= '9'; c++, digits++) {
            value = value * 10 + (*c - '0');
            weight *= 10;
        }
        if (c == first)
            return NULL;
    }
    if (digits > 24)
        return NULL;
    *number = value / weight;
    return c;
}

static int read_quantity(
    const char *word, const struct unit *units, size_t count, bool fold_case, double *value)
{
    double number;
    const char *rest = read_number(word, &number);
    if (!rest)
        return MESH_E_SYNTAX;
    for (size_t i = 0; i < count; i++) {
        int differs = fold_case ? strcasecmp(rest, units[i].word) : strcmp(rest, units[i].word);
        if (differs == 0) {
            *value = number * units[i].factor;
            return 0;
        }
    }
    return MESH_E_SYNTAX;
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

int units_duration_ns(const char *word, int64_t *duration_ns)
{
    static const struct unit units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9},
        {"m", 60e9}, {"h", 3600e9}, {"d", 86400e9}};
    double value;
    int error = read_quantity(word, units, COUNT(units), false, &value);
    if (error)
        return error;
    if (value > 9e18)
        return MESH_E_RANGE;
    *duration_ns = (int64_t)llround(value);
    return 0;
}

int units_rate_bps(const char *word, uint64_t *rate_bps)
{
    static const struct unit units[] = {{"", 1}, {"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"t", 1e12},
        {"bit/s", 1}, {"kbit/s", 1e3}, {"mbit/s", 1e6}, {"gbit/s", 1e9}, {"tbit/s", 1e12}};
    double value;
    int error = read_quantity(word, units, COUNT(units), true, &value);
    if (error)
        return error;
    if (value > 1e18)
        return MESH_E_RANGE;
    *rate_bps = (uint64_t)llround(value);
    return 0;
}

int units_size_bytes(const char *word, uint64_t *size_bytes)
{
    static const struct unit units[] = {
        {"", 1}, {"k", 1024.0}, {"m", 1048576.0}, {"g", 1073741824.0}, {"t", 1099511627776.0}};
    double value;
    int error = read_quantity(word, units, COUNT(units), true, &value);
    if (error)
        return error;
    if (value > 9e18)
        return MESH_E_RANGE;
    *size_bytes = (uint64_t)llround(value);
    return 0;
}

int units_percent(const char *word, double *ratio)
{
    static const struct unit units[] = {{"%", 0.01}};
    return read_quantity(word, units, COUNT(units), false, ratio);
}

int units_count(const char *word, uint64_t minimum, uint64_t maximum, uint64_t *count)
{
    uint64_t value = 0;
    if (!*word)
        return MESH_E_SYNTAX;
    for (const char *c = word; *c; c++) {
        if (*c < '0' || *c > '9')
            return MESH_E_SYNTAX;
        if (value > (UINT64_MAX - 9) / 10)
            return MESH_E_RANGE;
        value = value * 10 + (uint64_t)(*c - '0');
    }
    if (value < minimum || value > maximum)
        return MESH_E_RANGE;
    *count = value;
    return 0;
}

// Three significant digits of a number in [0, 1000), without trailing zeros beyond the point.
static void three_digits(double value, const char *unit, char text[UNITS_TEXT_SIZE])
{
    int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    char number[UNITS_TEXT_SIZE];
    snprintf(number, sizeof number, "%.*f", decimals, value);
    if (strchr(number, '.')) {
        size_t end = strlen(number);
        while (number[end - 1] == '0')
            end--;
        if (number[end - 1] == '.')
            end--;
        number[end] = '\0';
    }
    snprintf(text, UNITS_TEXT_SIZE, "%.16s %s", number, unit);
}

static const char *scaled(
    double value, const struct unit *units, size_t count, char text[UNITS_TEXT_SIZE])
{
    if (!isfinite(value) || value < 0) {
        snprintf(text, UNITS_TEXT_SIZE, "-");
        return text;
    }
    size_t best = 0;
    for (size_t i = 0; i < count; i++)
        if (value >= units[i].factor * 0.9995)
            best = i;
    three_digits(value / units[best].factor, units[best].word, text);
    return text;
}

const char *units_format_rate(double rate_bps, char text[UNITS_TEXT_SIZE])
{
    static const struct unit units[] = {
        {"bit/s", 1}, {"kbit/s", 1e3}, {"Mbit/s", 1e6}, {"Gbit/s", 1e9}, {"Tbit/s", 1e12}};
    return scaled(rate_bps, units, COUNT(units), text);
}

const char *units_format_seconds(double seconds, char text[UNITS_TEXT_SIZE])
{
    static const struct unit units[] = {
        {"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"min", 60}, {"h", 3600}};
    return scaled(seconds, units, COUNT(units), text);
}

const char *units_format_bytes(double bytes, char text[UNITS_TEXT_SIZE])
{
    static const struct unit units[] = {{"B", 1}, {"KiB", 1024.0}, {"MiB", 1048576.0},
        {"GiB", 1073741824.0}, {"TiB", 1099511627776.0}};
    return scaled(bytes, units, COUNT(units), text);
}

const char *units_format_ratio(double ratio, char text[UNITS_TEXT_SIZE])
{
    if (!isfinite(ratio) || ratio < 0)
        snprintf(text, UNITS_TEXT_SIZE, "-");
    else if (ratio > 0 && ratio < 0.00005)
        snprintf(text, UNITS_TEXT_SIZE, "<0.01 %%");
    else
        three_digits(ratio * 100, "%", text);
    return text;
}

struct exact_unit {
    const char *word;
    uint64_t factor;
};

static const char *exact(
    uint64_t value, const struct exact_unit *units, size_t count, char text[UNITS_TEXT_SIZE])
{
    size_t best = 0;
    for (size_t i = 0; i < count; i++)
        if (value && value % units[i].factor == 0)
            best = i;
    snprintf(text, UNITS_TEXT_SIZE, "%" PRIu64 "%s", value / units[best].factor, units[best].word);
    return text;
}

const char *units_word_duration(int64_t duration_ns, char text[UNITS_TEXT_SIZE])
{
    static const struct exact_unit units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000},
        {"s", 1000000000}, {"m", UINT64_C(60000000000)}, {"h", UINT64_C(3600000000000)}};
    if (duration_ns <= 0) {
        snprintf(text, UNITS_TEXT_SIZE, "0s");
        return text;
    }
    return exact((uint64_t)duration_ns, units, COUNT(units), text);
}

const char *units_word_rate(uint64_t rate_bps, char text[UNITS_TEXT_SIZE])
{
    static const struct exact_unit units[] = {
        {"", 1}, {"k", 1000}, {"M", 1000000}, {"G", 1000000000}, {"T", UINT64_C(1000000000000)}};
    return exact(rate_bps, units, COUNT(units), text);
}
