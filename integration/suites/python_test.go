// SPDX-License-Identifier: Apache-2.0

package suites

import "testing"

const unittestSample = `== CPython 3.11.2 (main, Apr 28 2025, 14:11:48) [GCC 12.2.0]
0:00:00 load avg: 0.81 [1/1] test_os
test_blocking (test.test_os.BlockingTests.test_blocking) ... ok
test_getlogin (test.test_os.LoginTests.test_getlogin) ... skipped 'Skip due to platform/environment differences on *NIX platforms'
test_makedir (test.test_os.MakedirTests.test_makedir)
Make a directory ... ok
test_noise (test.test_os.ProgramPriorityTests.test_noise) ... something
that the test prints
ok
test_late (test.test_os.ProgramPriorityTests.test_late) ... no end of linetest_sub (test.test_os.X.test_sub) ... 
test_sub (test.test_os.SubTests.test_sub) ... test_xfail (test.test_os.SubTests.test_xfail) ... expected failure
test_bad (test.test_os.StatTests.test_bad) ... FAIL
test_worse (test.test_os.StatTests.test_worse) ... ERROR
test_old (test.test_os.Old) ... ok

======================================================================
ERROR: test_worse (test.test_os.StatTests.test_worse)
----------------------------------------------------------------------
Traceback (most recent call last):
======================================================================
FAIL: test_sub (test.test_os.SubTests.test_sub) (fd=3)
----------------------------------------------------------------------
Ran 9 tests in 12.345s

FAILED (failures=2, errors=1, skipped=1)
`

func TestParseUnittest(t *testing.T) {
	want := Results{
		"test_os.BlockingTests.test_blocking":     Pass,
		"test_os.LoginTests.test_getlogin":        Skip,
		"test_os.MakedirTests.test_makedir":       Pass,
		"test_os.ProgramPriorityTests.test_noise": Pass,
		"test_os.ProgramPriorityTests.test_late":  Pass,
		"test_os.SubTests.test_sub":               Fail,
		"test_os.StatTests.test_bad":              Fail,
		"test_os.StatTests.test_worse":            Fail,
		"test_os.Old.test_old":                    Pass,
	}
	wantResults(t, ParseUnittest(Output{Text: unittestSample}), want)
	// Without an end, the test that ran last has not passed.
	wantResults(t, ParseUnittest(Output{Text: "test_a (test.m.C.test_a) ... ok\ntest_b (test.m.C.test_b) ... Segmentation fault\n"}),
		Results{"m.C.test_a": Pass, "m.C.test_b": Fail})
}
