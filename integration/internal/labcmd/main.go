// SPDX-License-Identifier: Apache-2.0

package labcmd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/xcontainer/xcontainer/integration/lab"
)

// exitUsage and exitFailed are the codes of the lab command itself; exec
// returns the command's code.
const (
	exitFailed = 1
	exitUsage  = 2
	// exitLab is exec's code when the command could not be run, as ssh's.
	exitLab = 255
)

// command is one subcommand.
type command struct {
	name, args, help string
	run              func(ctx context.Context, e *env, args []string) (code int, err error)
}

// env is what a subcommand gets.
type env struct {
	flags *flag.FlagSet
	opt   lab.Options
	show  *progress
}

// errUsage means that the arguments are wrong; its text says how.
var errUsage = errors.New("wrong arguments")

func commands() []command {
	return []command{
		{"up", "[--name=NAME] [--xen=VERSION|XKERNEL|FILE] [--no-xen [--pti=on|off]] [--mem=MB] [--cpus=N] [--payload=DIR]", "build what is missing and start the lab", runUp},
		{"exec", "[-t] [--] CMD [ARG...]", "run a command in dom0, with its input, output and exit code", runExec},
		{"shell", "", "open a shell on dom0", runShell},
		{"cp", "SRC DST", "copy a file or folder; lab: before a path means dom0's", runCp},
		{"payload", "", "bring the payload folder's current files into dom0's /opt/xcontainer", runPayload},
		{"logs", "[-f] [console|containerd|sshd]", "print the console of Xen and dom0, or a log of dom0", runLogs},
		{"profile", "[--seconds=N] [--top=N] [--symbols=FILE]", "say in which functions of Xen and a kernel the machine is", runProfile},
		{"status", "", "say whether the lab runs, and how", runStatus},
		{"down", "", "end the lab; its disk is lost", runDown},
		{"build", "[--xen=VERSION|XKERNEL|FILE] [--update]", "build all that up needs, and start nothing", runBuild},
	}
}

// Main runs the lab command and returns its exit code.
func Main(args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(os.Stdout)
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		e := newEnv(c)
		code, err := c.run(ctx, e, args[1:])
		e.show.finish(err == nil)
		switch {
		case errors.Is(err, flag.ErrHelp):
			return 0
		case errors.Is(err, errUsage):
			code = exitUsage
			fmt.Fprintf(os.Stderr, "%v\nusage: lab %s %s\n", err, c.name, c.args)
		case err != nil:
			fmt.Fprintln(os.Stderr, err)
		}
		return code
	}
	fmt.Fprintf(os.Stderr, "lab: no command %q; lab help lists them\n", args[0])
	return exitUsage
}

// usage prints one line for each command.
func usage(w io.Writer) {
	fmt.Fprint(w, "lab runs a real Xen host with containerd in QEMU, one for each checkout.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  lab %s\n      %s\n", strings.TrimSpace(c.name+" "+c.args), c.help)
	}
	fmt.Fprint(w, "\n--name=NAME or $"+lab.EnvName+" selects one of several labs of a checkout.\n")
}

// newEnv prepares the flags that every command has.
func newEnv(c command) *env {
	e := &env{flags: flag.NewFlagSet("lab "+c.name, flag.ContinueOnError), show: newProgress(os.Stderr)}
	e.flags.SetOutput(os.Stderr)
	e.flags.StringVar(&e.opt.Name, "name", "", "which `lab` of this checkout")
	e.flags.Usage = func() {
		fmt.Fprintf(os.Stderr, "usage: lab %s %s\n%s\n", c.name, c.args, c.help)
		e.flags.PrintDefaults()
	}
	e.opt.Progress = e.show.step
	return e
}

// parse parses flags and checks the number of other arguments.
func (e *env) parse(args []string, least, most int) ([]string, error) {
	if err := e.flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, fmt.Errorf("lab: %w", errUsage)
	}
	rest := e.flags.Args()
	if len(rest) < least || most >= 0 && len(rest) > most {
		return nil, fmt.Errorf("lab: %w: got %d", errUsage, len(rest))
	}
	return rest, nil
}
