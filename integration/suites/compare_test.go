// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"slices"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/tally"
)

func comparison() Comparison {
	return Comparison{Modes: []string{"full", "off"}, Results: map[string]Results{
		"full": {"a": Pass, "a:1": Pass, "a:2": Fail, "b": Skip, "b:1": Fail, "c": Broken, "d": Pass, "e": Fail},
		"off":  {"a": Pass, "a:1": Fail, "a:2": Fail, "b": Skip, "c": Broken, "d": Skip, "e": Fail},
	}}
}

func TestJudge(t *testing.T) {
	units := []string{"a", "b", "c", "d", "e"}
	for name, test := range map[string]struct {
		known Known
		units []string
		want  tally.Tally
		lines []string
	}{
		"nothing known": {nil, units, tally.Tally{Passed: 3, Failed: 4, Skipped: 1}, []string{
			"DIFFERS a:1: full pass, off fail", "fails   a:2: full fail, off fail", "DIFFERS b:1: full fail, off missing",
			"DIFFERS c: full broken, off broken", "DIFFERS d: full pass, off skip", "fails   e: full fail, off fail"}},
		"some known": {Known{"a:1": "why", "b:*": "b's reason", "c": "hangs"}, units, tally.Tally{Passed: 3, Failed: 1, Skipped: 4}, []string{
			"known   a:1: full pass, off fail (why)", "fails   a:2: full fail, off fail", "known   b:1: full fail, off missing (b's reason)",
			"known   c: full broken, off broken (hangs)", "DIFFERS d: full pass, off skip", "fails   e: full fail, off fail"}},
		"no longer": {Known{"a:2": "old", "e:9": "gone", "other": "not run"}, units, tally.Tally{Passed: 3, Failed: 6, Skipped: 1}, []string{
			"DIFFERS a:1: full pass, off fail", "fails   a:2: full fail, off fail", "DIFFERS b:1: full fail, off missing",
			"DIFFERS c: full broken, off broken", "DIFFERS d: full pass, off skip", "fails   e: full fail, off fail",
			"STALE   a:2 is listed as a difference and is none: old", "STALE   e:9 is listed as a difference and is none: gone"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := comparison().Judge(Lists{AnyMode: test.known}, test.units)
			if v.Tally != test.want || !slices.Equal(v.Lines, test.lines) {
				t.Errorf("got %v\n%s\nwant %v\n%s", v.Tally, strings.Join(v.Lines, "\n"), test.want, strings.Join(test.lines, "\n"))
			}
		})
	}
}

// What is known of a third mode explains nothing between the first two.
func TestJudgeOfAMode(t *testing.T) {
	c := comparison()
	c.Modes = append(c.Modes, "runc")
	c.Results["runc"] = Results{}
	for name := range c.Results["full"] {
		c.Results["runc"][name] = Fail
	}
	v := c.Judge(Lists{"runc": {"a*": "old kernel"}}, []string{"a"})
	got := v.Lines[:min(2, len(v.Lines))]
	want := []string{"known   a: full pass, off pass, runc fail (old kernel)", "DIFFERS a:1: full pass, off fail, runc fail"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q first", v.Lines, want)
	}
}

// What is known says nothing of modes between which it is not.
func TestJudgeWithoutTheModes(t *testing.T) {
	known := Lists{AnyMode: {"a": "the table"}, "runc": {"b": "an older kernel"}}
	results := Results{"a": Pass, "b": Pass, "c": Fail}
	for _, test := range []struct {
		modes []string
		stale int
	}{
		{[]string{"runc"}, 0}, {[]string{"off"}, 0}, {[]string{"full", "entry"}, 1}, {[]string{"full", "runc"}, 1},
		{[]string{"full", "off"}, 2}, {[]string{"off", "entry", "runc"}, 2},
	} {
		c := Comparison{Modes: test.modes, Results: map[string]Results{}}
		for _, m := range test.modes {
			c.Results[m] = results
		}
		v := c.Judge(known, []string{"a", "b", "c"})
		if v.Tally.Failed != test.stale || v.Tally.Passed != 3 || v.Alike != 1 || !strings.HasPrefix(v.Lines[0], "fails   c: ") {
			t.Errorf("%q: %v, %d fail alike, %q; want %d failures", test.modes, v.Tally, v.Alike, v.Lines, test.stale)
		}
	}
}

func TestJudgeNothing(t *testing.T) {
	c := Comparison{Modes: []string{"full", "off"}, Results: map[string]Results{"full": {"a": Skip}, "off": {"a": Skip}}}
	if v := c.Judge(nil, []string{"a"}); v.Tally.Failed != 1 {
		t.Errorf("only skipped tests: %v, want a failure", v.Tally)
	}
}

// A second run counts instead of the first, with all tests of its units.
func TestReplace(t *testing.T) {
	c := comparison()
	units := Units(c.Differences())
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(units, want) {
		t.Fatalf("units %q differ, want %q", units, want)
	}
	c.Replace([]string{"a", "b"}, map[string]Results{"full": {"a": Pass, "a:1": Fail, "b": Skip}, "off": {"a": Pass, "a:1": Fail, "b": Skip}})
	wantResults(t, c.Results["full"], Results{"a": Pass, "a:1": Fail, "b": Skip, "c": Broken, "d": Pass, "e": Fail})
	if got := Units(c.Differences()); !slices.Equal(got, []string{"c", "d"}) {
		t.Errorf("units %q differ, want c and d", got)
	}
}

func TestKnown(t *testing.T) {
	k := Known{}
	err := k.add("# a comment\n\na:1 read # 2 #2 # it is late\n and dark\nb:* # all of b\nb:1* # these\n")
	if err != nil {
		t.Fatal(err)
	}
	for test, want := range map[string]string{
		"a:1 read # 2 #2": "it is late and dark", "b:2": "all of b", "b:17": "these", "b": "", "c": "",
	} {
		entry, ok := k.find(test)
		if ok != (want != "") || k[entry] != want {
			t.Errorf("%s: %q, want %q", test, k[entry], want)
		}
	}
	for _, bad := range []string{"a\n", "a # \n", " # reason\n", "a # r\na # s\n", " goes on\n", "mm/* # all of mm\n"} {
		if err := (Known{}).add(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// The committed lists are well-formed, and their tests are in units that there are.
func TestCommittedLists(t *testing.T) {
	for _, s := range All() {
		modes := []string{"full", "off", "runc"}
		up, err := KnownOf(s.Name, modes, 1)
		if err != nil {
			t.Error(err)
		}
		smp, err := KnownOf(s.Name, modes, 2)
		if err != nil {
			t.Error(err)
		}
		// The SMP kernel's are added to the others.
		if s.Name == "selftests" && (len(up[AnyMode]) == 0 || len(smp[AnyMode]) <= len(up[AnyMode])) {
			t.Errorf("selftests: %d known with one virtual CPU, %d with two", len(up[AnyMode]), len(smp[AnyMode]))
		}
		if s.Limit <= 0 || s.MemoryMB <= 0 || len(s.Short) == 0 || strings.ContainsAny(s.Name, " /:") {
			t.Errorf("suite %q is not complete", s.Name)
		}
	}
	units := selftestUnits()
	for i, u := range units {
		if strings.Contains(u, ":") || slices.Contains(units[:i], u) {
			t.Errorf("unit %q has a colon, or is there twice", u)
		}
	}
	for u := range selftests().Limits {
		if !slices.Contains(units, u) {
			t.Errorf("there is a limit for %q, which is no unit", u)
		}
	}
}
