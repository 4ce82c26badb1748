#ifndef MESHPERF_CHECK_H
#define MESHPERF_CHECK_H

// A check, printed: a policy's verdicts in each output format, and JUnit XML. Pure, as the reports
// of runs are; the formats are rows of one table.

#include <stdbool.h>
#include <stdio.h>

#include "meshperf.pb-c.h"
#include "policy.h"

// All borrowed for the call.
struct check_report {
    const struct policy_checks *checks;
    const struct policy_judged *judged; // one a check
    const struct policy_counts *counts;
    const Mp__RunInfo *info; // NULL: there was nothing to run
    bool color, verbose;     // verbose: no detail is left out of the table
    int exit_status;         // for the event stream's end
};

// The formats of report_formats, and "junit"; any other prints nothing. 0, or -errno of the stream.
int check_print(const struct check_report *report, const char *format, FILE *stream);
// The events of the verdicts alone, without an end, for a stream that is under way.
void check_print_events(const struct check_report *report, FILE *stream);

// A document with one failing case, for a check that could not start. `policy` may be a file name.
void check_junit_failure(const char *policy, const char *why, FILE *stream);

#endif
