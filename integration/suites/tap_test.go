// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"maps"
	"testing"
)

// wantResults compares what a parser found.
func wantResults(t *testing.T, got, want Results) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseTAP(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want Results
	}{
		"harness": {`TAP version 13
1..99
# Starting 99 tests from 8 test cases.
#  RUN           global.kcmp ...
#            OK  global.kcmp
ok 1 global.kcmp
# seccomp_bpf.c:4216:global.user_notification_addfd_send_interrupted:Expected read(4, &byte, 1) (-1) == 0 (0)
#          FAIL  global.user_notification_addfd_send_interrupted
not ok 52 global.user_notification_addfd_send_interrupted
#      SKIP      cannot tell
ok 53 global.user_notification_filter_empty # SKIP cannot tell
# FAILED: 98 / 99 tests passed.
# Totals: pass:98 fail:1 xfail:0 xpass:0 skip:0 error:0
`, Results{
			"1 global.kcmp": Pass,
			"52 global.user_notification_addfd_send_interrupted": Fail,
			"53 global.user_notification_filter_empty":           Skip,
		}},
		"what changes": {`1..3
ok 4 Check success of execveat(-100, '/var/tmp/suite/exec/execveat', 0)... ` + `
ok 1 sys membarrier MEMBARRIER_CMD_GET_REGISTRATIONS test: flags = 0, ret = 16, registrations = 16
ok 2 mapped at 0x7f12deadb000 after 12.5 ms
ok 3 Success reaping a child with 2MB of memory allocations
`, Results{
			"4 Check success of execveat(-N, '/var/tmp/suite/exec/execveat', N)...":                         Pass,
			"1 sys membarrier MEMBARRIER_CMD_GET_REGISTRATIONS test: flags = N, ret = N, registrations = N": Pass,
			"2 mapped at 0x- after N ms":                             Pass,
			"3 Success reaping a child with N of memory allocations": Pass,
		}},
		"directives": {"ok 1 # SKIP Cannot test\nnot ok 2 one # TODO later\nok 3 two # XFAIL\nok 4 - three\nok 4 - three\n", Results{
			"1": Skip, "2 one": Pass, "3 two": Pass, "4 three": Pass, "4 three #2": Pass,
		}},
		"nothing to do": {"1..0 # Skip no locale\n", Results{"plan": Skip}},
		"perl": {"1..3\nok 1\nok 2 - print works\nnot ok 3 - TODO # TODO [perl #115910]\n# Failed (TODO) test\n", Results{
			"1": Pass, "2 print works": Pass, "3 TODO": Pass,
		}},
		"no test": {"[RUN]\tValid sigreturn: 64-bit CS (33), 32-bit SS (2b, GDT)\n[OK]\tall registers okay\nok, done\nok\nokay 7\n", Results{}},
	} {
		t.Run(name, func(t *testing.T) { wantResults(t, ParseTAP(Output{Text: test.text}), test.want) })
	}
}

func TestParseNumbers(t *testing.T) {
	const text = "1..4\nok 1 - open(tmp_QR_B)\nnot ok 2\nok 3 # SKIP why\nok 3 - again\nokay\n"
	wantResults(t, ParseNumbers(Output{Text: text}), Results{"1": Pass, "2": Fail, "3": Skip, "3 #2": Pass})
}

func TestUnitAsAWhole(t *testing.T) {
	codeOnly := &Suite{Parse: ParseTAP, CodeOnly: true, SkipCode: kselftestSkip}
	strict := &Suite{Parse: ParseTAP}
	for name, test := range map[string]struct {
		suite *Suite
		out   Output
		want  Results
	}{
		"passes":               {strict, Output{Text: "ok 1 a\n"}, Results{"u:1 a": Pass, "u": Pass}},
		"fails":                {strict, Output{Text: "ok 1 a\n", Code: 1}, Results{"u:1 a": Pass, "u": Fail}},
		"dies without a test":  {strict, Output{Code: 139}, Results{"u": Broken}},
		"has no test":          {strict, Output{Text: "fine\n"}, Results{"u": Broken}},
		"has only a code":      {codeOnly, Output{Text: "[OK]\n"}, Results{"u": Pass}},
		"has only a bad code":  {codeOnly, Output{Text: "[FAIL]\n", Code: 1}, Results{"u": Fail}},
		"cannot be run":        {codeOnly, Output{Code: 4}, Results{"u": Skip}},
		"code 4 without sense": {strict, Output{Text: "ok 1\n", Code: 4}, Results{"u:1": Pass, "u": Fail}},
		"is not there":         {codeOnly, Output{Text: "sh: stress-ng: not found\n", Code: 127}, Results{"u": Broken}},
		"is not there, strict": {strict, Output{Text: "ok 1 a\n", Code: 127}, Results{"u:1 a": Pass, "u": Broken}},
		"has no library":       {codeOnly, Output{Text: "x: error while loading shared libraries: y\n", Code: 1}, Results{"u": Broken}},
		"has an old library":   {codeOnly, Output{Text: "./x: /lib/libc.so.6: version `GLIBC_2.38' not found\n", Code: 1}, Results{"u": Broken}},
		"does not end":         {codeOnly, Output{Text: "ok 1 a\n", Broken: "did not end"}, Results{"u": Broken}},
	} {
		t.Run(name, func(t *testing.T) { wantResults(t, test.suite.Results("u", test.out), test.want) })
	}
}
