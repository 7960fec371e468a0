// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"time"
)

// runtimeSuite is a program of programs/NAME that is run in several ways: a unit is
// one of the ways, a test a part of the program with what it came to.
func runtimeSuite(name, about string, packages []string, ways map[string]string) *Suite {
	units := slices.Sorted(maps.Keys(ways))
	return &Suite{
		Name: name, About: about,
		Build: func(ctx context.Context, b Builder) (Material, error) {
			dir := filepath.Join(b.Scratch, name)
			if err := copyPrograms(name, dir); err != nil {
				return Material{}, err
			}
			image, archive, err := b.Inputs.SuiteImage(ctx, name, packages...)
			return Material{Image: image, Archive: archive, Folder: dir, Units: units}, err
		},
		Command: func(unit string) string {
			return "mkdir -p " + Work + " && cd " + Work + " || exit\nexport HOME=/root LC_ALL=C.UTF-8\n" + ways[unit]
		},
		Parse: ParseResults,
		Limit: 30 * time.Minute, MemoryMB: 1024,
		Short: units[:1],
	}
}

// javaHome is where Debian has Java. No maintainer script has made a link to it.
const javaHome = "/usr/lib/jvm/java-17-openjdk-amd64"

// java is a program for OpenJDK. It is compiled once in a container.
func java() *Suite {
	run := func(options string) string {
		return "[ -e Work.class ] || " + javaHome + "/bin/javac -J-Xmx256m -d . " + Mount + "/Work.java || exit\n" +
			"exec " + javaHome + "/bin/java -Xmx128m " + options + " Work"
	}
	return runtimeSuite("java", "a program for OpenJDK 17", []string{"openjdk-17-jdk-headless"}, map[string]string{
		"g1":          run("-XX:+UseG1GC"),
		"parallel":    run("-XX:+UseParallelGC -XX:ParallelGCThreads=2"),
		"serial":      run("-XX:+UseSerialGC"),
		"serial-c1":   run("-XX:+UseSerialGC -XX:TieredStopAtLevel=1"),
		"serial-comp": run("-XX:+UseSerialGC -Xbatch -XX:-TieredCompilation"),
	})
}

// node is a program for Node.js.
func node() *Suite {
	run := func(options string) string {
		return "exec node --max-old-space-size=256 " + options + " " + Mount + "/work.js"
	}
	return runtimeSuite("node", "a program for Node.js", []string{"nodejs"}, map[string]string{
		"default":    run("--expose-gc"),
		"always-opt": run("--expose-gc --always-opt"),
		"no-opt":     run("--expose-gc --single-threaded-gc --no-opt"),
	})
}
