#ifndef MESHPERF_MESHTEST_H
#define MESHPERF_MESHTEST_H

// cmocka needs these before it; a formatter that sorts includes would break every test file.

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#endif
