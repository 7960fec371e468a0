// SPDX-License-Identifier: Apache-2.0

package suites

import "testing"

func TestParseGo(t *testing.T) {
	const text = "\x16=== RUN   TestCondSignal\n" +
		"\x16--- PASS: TestCondSignal (0.00s)\n\x16=== NAME  \n" +
		"\x16=== RUN   TestPacketConn\n    net_test.go:12: not on this network\n\x16--- SKIP: TestPacketConn (0.01s)\n" +
		"\x16=== RUN   TestPipe\n\x16=== RUN   TestPipe/a=b\n\x16=== PAUSE TestPipe/a=b\n\x16=== CONT  TestPipe/a=b\n" +
		"half a line\x16    --- FAIL: TestPipe/a=b (1.20s)\n\x16--- FAIL: TestPipe (1.21s)\n" +
		"\x16=== RUN   ExampleOnce\n\x16--- PASS: ExampleOnce (0.00s)\n" +
		"\x16=== RUN   TestCrash\nSIGSEGV: segmentation violation\n"
	wantResults(t, ParseGo(Output{Text: text}), Results{
		"TestCondSignal": Pass, "TestPacketConn": Skip, "TestPipe/a=b": Fail, "TestPipe": Fail,
		"ExampleOnce": Pass, "TestCrash": Fail,
	})
	wantResults(t, ParseGo(Output{Text: "panic: before the first test\n"}), Results{})
}
