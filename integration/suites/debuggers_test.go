// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"os/exec"
	"path/filepath"
	"testing"
)

func TestParseResults(t *testing.T) {
	const text = "[Thread debugging using libthread_db enabled]\nRESULT pass the breakpoint is hit\n" +
		"is: STEP 0 0\nRESULT fail steps go over mov and syscall\nRESULT skip this\nRESULT\nRESULT pass\nRESULT good x\n a RESULT pass y\n"
	wantResults(t, ParseResults(Output{Text: text}), Results{
		"the breakpoint is hit": Pass, "steps go over mov and syscall": Fail, "this": Skip,
	})
}

// The scripts are at least scripts, and each unit has one.
func TestDebuggerScripts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "debuggers")
	if err := copyPrograms("debuggers", dir); err != nil {
		t.Fatal(err)
	}
	for _, u := range append(debuggerUnits, "common.sh") {
		if out, err := exec.Command("sh", "-n", filepath.Join(dir, u)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", u, err, out)
		}
	}
}
