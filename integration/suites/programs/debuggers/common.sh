# SPDX-License-Identifier: Apache-2.0
# Common to the scripts: what they debug, and how they say what they found.
#
# The program is perl, which comes with a dynamic C library. Its getppid is always
# the system call, by a site of 7 bytes (mov $110, %eax; syscall) that is hot after
# some thousands of calls.

LC_ALL=C
export LC_ALL
dir=$(mktemp -d)
cd "$dir" || exit 1
export HOME="$dir"
failed=0

# result STATUS NAME: the line that is parsed.
result() {
	echo "RESULT $1 $2"
	[ "$1" = pass ] || failed=1
}

# check NAME COMMAND...: passes if the command succeeds.
check() {
	name=$1
	shift
	if "$@"; then result pass "$name"; else result fail "$name"; fi
}

# has PATTERN FILE
has() { grep -Eq -- "$1" "$2"; }

# equal A B
equal() {
	[ "$1" = "$2" ] && return
	echo "is: $1"
	echo "want: $2"
	return 1
}

# hot: starts a program whose getppid is hot, as $pid. It tells that by the file
# "hot", goes on until there is a file "stop", and says "done" and how often its
# parent was another one, in "said".
hot() {
	rm -f hot stop said
	perl -e '
		my ($parent, $wrong) = (getppid(), 0);
		for (1 .. 20000) { $wrong++ if getppid() != $parent }
		open(my $f, ">", "hot") or die; close $f;
		until (-e "stop") {
			for (1 .. 50) { $wrong++ if getppid() != $parent }
			select(undef, undef, undef, 0.01);
		}
		print "done $wrong\n";
	' >said &
	pid=$!
	until [ -e hot ]; do
		kill -0 "$pid" || { result fail "the program starts"; exit 1; }
		sleep 0.1
	done
}

# ended NAME: stops the program, which must end as if nothing had been.
ended() {
	: >stop
	code=0
	wait "$pid" || code=$?
	check "$1" equal "$(cat said) $code" "done 0 0"
}

# gdb without anybody's settings.
gdb() { command gdb -q -nx -nh -batch -iex 'set debuginfod enabled off' -iex 'set pagination off' "$@" 2>&1 </dev/null; }

finish() { exit "$failed"; }
