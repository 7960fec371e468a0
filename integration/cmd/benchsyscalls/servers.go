// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/csv"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
)

const serverLegend = `Requests per second, and calls per second in the last row; more is better. In
brackets: how many times as many as runc with pti=on, and as with pti=off. In per
cent: direct calls, which Xen did not see, of those while the requests were made, the
client's included. Server and client share one CPU of the container.`

// clients is how many connections a server is asked through at once.
const clients = "16"

// perSecond is the unit of rates.
var perSecond = unit{name: "per second", rate: true}

// server is one that a container starts for a workload.
type server struct {
	name, title string
	start       string // the command, which stays in the foreground
	port        int
	load        string // SECONDS is replaced
	// warm is done before what counts; it may set variables for load. If it is "",
	// that is load in half the time.
	warm  string
	parse func(stdout string) (figure, error)
}

// servers are all, in the order of the table.
var servers = []server{
	redis("GET"),
	redis("SET"),
	{
		name: "memcached", title: "memcached, memcaslap", port: 11211,
		start: "memcached -u root -l 127.0.0.1",
		load:  "memcaslap -s 127.0.0.1:11211 -T 1 -c " + clients + " -w 1k -t SECONDSs",
		parse: parseMemcaslap,
	},
	httpServer("nginx", "nginx, wrk", "nginx -c "+mount+"/nginx.conf", 8001),
	httpServer("apache", "apache, wrk", "apache2 -DFOREGROUND -f "+mount+"/apache.conf", 8002),
	httpServer("python", "python3 http.server, wrk", "python3 "+mount+"/http_server.py", 8003),
	httpServer("go", "Go net/http, wrk", mount+"/"+serverName+" 127.0.0.1:8004", 8004),
}

// httpServer is one that has /index.html, or answers so.
func httpServer(name, title, start string, port int) server {
	return server{
		name: name, title: title, start: start, port: port, parse: parseWrk,
		load: fmt.Sprintf("wrk -t 1 -c %s -d SECONDSs --timeout 30s http://127.0.0.1:%d/index.html", clients, port),
	}
}

// redis is the server with requests of one kind. Its client takes a number of them,
// not a time; the warm-up tells how many there are in that. It sets what is read.
func redis(test string) server {
	lower := strings.ToLower(test)
	return server{
		name: "redis-" + lower, title: "redis, " + test, port: 6379,
		start: `redis-server --bind 127.0.0.1 --save "" --appendonly no`,
		warm: fmt.Sprintf(`out=$(redis-benchmark --csv -c %s -n 2000 -t set,get) || exit 1
n=$(echo "$out" | awk -F '"' '$2 == "%s" { print int($4 * SECONDS) + %[1]s }')
[ "$n" -gt 0 ]`, clients, test),
		load:  "redis-benchmark --csv -c " + clients + ` -n "$n" -t ` + lower,
		parse: func(out string) (figure, error) { return parseRedis(test, out) },
	}
}

// serverWorkloads are the servers in each image.
func serverWorkloads(images []inputs.ServerImage) []workload {
	var all []workload
	for _, im := range images {
		for _, s := range servers {
			all = append(all, workload{
				name: s.name + "-" + im.Glibc, title: s.title + ", glibc " + im.Glibc, image: im.Name,
				unit: perSecond, calls: 1, prepare: s.prepare(), script: s.load, parse: s.parse,
			})
		}
	}
	return append(all, workload{
		name: "musl", title: "80,000 calls by musl, shared", image: images[len(images)-1].Name,
		unit: perSecond, calls: 80_000,
		script: mount + "/" + muslName + " SECONDS libc", parse: parseSysbench,
	})
}

// prepare is a script that starts the server, waits until it listens, and warms up.
// The server ends with the shell. All its files are in /dev/shm, which is a tmpfs
// everywhere.
func (s server) prepare() string {
	warm := s.warm
	if warm == "" {
		warm = strings.ReplaceAll(s.load, "SECONDS", "$(((SECONDS + 1) / 2))")
	}
	return fmt.Sprintf(`mkdir -p /dev/shm/www
echo 'Hello from a container.' >/dev/shm/www/index.html
%s </dev/null >/dev/shm/server.log 2>&1 &
server=$!
trap '[ $? = 0 ] || tail -n 20 /dev/shm/server.log >&2; kill $server; wait $server' EXIT
for i in $(seq 100); do
bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d' 2>/dev/null && break
sleep 0.5
done
%s || exit 1`, s.start, s.port, warm)
}

// rate is the figure of so many requests in a second.
func rate(text string) (figure, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v > 0) || math.IsInf(v, 0) {
		return figure{}, fmt.Errorf("%q requests per second", text)
	}
	return figure{best: 1e9 / v, mean: 1e9 / v}, nil
}

// parseRedis reads what redis-benchmark --csv prints: a heading, and a line of one
// test. The program fails by itself at a request that does.
func parseRedis(test, stdout string) (figure, error) {
	lines, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	if err != nil {
		return figure{}, fmt.Errorf("redis-benchmark: %w", err)
	}
	if len(lines) != 2 || lines[1][0] != test {
		return figure{}, fmt.Errorf("redis-benchmark: not one line of %s in %q", test, stdout)
	}
	i := slices.Index(lines[0], "rps")
	if i < 0 {
		return figure{}, fmt.Errorf("redis-benchmark: no rate in %q", stdout)
	}
	return rate(lines[1][i])
}

var (
	wrkRate  = regexp.MustCompile(`(?m)^Requests/sec: +(\S+)$`)
	wrkError = regexp.MustCompile(`(?m)^ *(Socket errors|Non-2xx or 3xx responses): .*$`)

	memcaslapRate  = regexp.MustCompile(`(?m)^Run time: .* TPS: (\d+) `)
	memcaslapCount = regexp.MustCompile(`(?m)^(cmd_get|get_misses): (\d+)$`)
)

// parseWrk reads what wrk prints. It tells of errors there and nowhere else.
func parseWrk(stdout string) (figure, error) {
	if text := wrkError.FindString(stdout); text != "" {
		return figure{}, fmt.Errorf("wrk: %s", strings.TrimSpace(text))
	}
	m := wrkRate.FindAllStringSubmatch(stdout, -1)
	if len(m) != 1 {
		return figure{}, fmt.Errorf("wrk: not one rate in %q", stdout)
	}
	return rate(m[0][1])
}

// parseMemcaslap reads what memcaslap prints. A value that is not found is less work
// than one that is, so that there must be few.
func parseMemcaslap(stdout string) (figure, error) {
	counts := map[string]float64{}
	for _, m := range memcaslapCount.FindAllStringSubmatch(stdout, -1) {
		n, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return figure{}, fmt.Errorf("memcaslap: %w", err)
		}
		counts[m[1]] = n
	}
	if len(counts) != 2 || counts["get_misses"] > counts["cmd_get"]/100 {
		return figure{}, fmt.Errorf("memcaslap: %v, want at most one miss in 100: %q", counts, stdout)
	}
	m := memcaslapRate.FindAllStringSubmatch(stdout, -1)
	if len(m) != 1 {
		return figure{}, fmt.Errorf("memcaslap: not one rate in %q", stdout)
	}
	return rate(m[0][1])
}
