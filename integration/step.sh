#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# step.sh WHAT COMMAND...: run the command under a headline and say how long it took.
what=$1
shift
printf '=== %s\n' "$what"
begin=$SECONDS
"$@"
code=$?
printf '=== %s: %s after %d s\n' "$what" "$([ $code = 0 ] && echo done || echo "failed ($code)")" $((SECONDS - begin))
exit $code
