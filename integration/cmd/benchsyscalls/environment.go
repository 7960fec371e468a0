// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// Configurations that the others are compared with.
const (
	withPTI    = "runc-pti"
	withoutPTI = "runc-nopti"
)

// environment is a lab in which containers of some configurations are measured.
type environment struct {
	name    string
	system  string // what containers run on, for the reader
	options lab.Options
	configs []config
}

// config is how a container is run: a column of the table.
type config struct {
	name   string
	title  string
	color  string // in the plot
	system string // of its environment

	runtime string
	// Annotations, with our runtime.
	xlibos string
	vcpus  int
	// What /proc/xlibos has to say then. With ctrbox.ModeOff the file may be missing.
	mode      string
	rewriting bool
}

// environments are all there are, on a version of Xen, in the order of the table.
func environments(xen string) []environment {
	all := []environment{
		{name: withPTI, system: "Linux", options: lab.Options{NoXen: true, PTI: "on"}, configs: []config{
			{name: withPTI, title: "runc, pti=on", color: "#555555", runtime: ctrbox.Runc},
		}},
		{name: withoutPTI, system: "Linux", options: lab.Options{NoXen: true, PTI: "off"}, configs: []config{
			{name: withoutPTI, title: "runc, pti=off", color: "#aaaaaa", runtime: ctrbox.Runc},
		}},
		{name: "xen", system: "Xen " + xen, options: lab.Options{Xen: xen}, configs: []config{
			{name: "xen-off-up", title: "stock PV guest, UP", color: "#a83232",
				runtime: ctrbox.Ours, xlibos: ctrbox.XLibOSOff, vcpus: 1, mode: ctrbox.ModeOff},
			{name: "xen-off-smp", title: "stock PV guest, SMP", color: "#e08a8a",
				runtime: ctrbox.Ours, xlibos: ctrbox.XLibOSOff, vcpus: 2, mode: ctrbox.ModeOff},
			{name: "xen-entry-up", title: "Xen, entry, UP", color: "#f0a030",
				runtime: ctrbox.Ours, xlibos: ctrbox.XLibOSEntry, vcpus: 1, mode: ctrbox.ModeBounce},
			{name: "xen-full-up", title: "Xen, full, UP", color: "#1f5fa8",
				runtime: ctrbox.Ours, xlibos: ctrbox.XLibOSFull, vcpus: 1, mode: ctrbox.ModeBounce, rewriting: true},
			{name: "xen-full-smp", title: "Xen, full, SMP", color: "#7fb2e5",
				runtime: ctrbox.Ours, xlibos: ctrbox.XLibOSFull, vcpus: 2, mode: ctrbox.ModeBounce, rewriting: true},
		}},
		{name: "xkernel", system: "X-Kernel " + xen, options: lab.Options{Xen: "xkernel-" + xen}, configs: []config{
			{name: "xkernel-entry-up", title: "X-Kernel, entry, UP", color: "#9bcf9b",
				runtime: ctrbox.Ours, xlibos: ctrbox.XLibOSEntry, vcpus: 1, mode: ctrbox.ModeShared},
			{name: "xkernel-full-up", title: "X-Kernel, full, UP", color: "#2c7a2c",
				runtime: ctrbox.Ours, xlibos: ctrbox.XLibOSFull, vcpus: 1, mode: ctrbox.ModeShared, rewriting: true},
			{name: "xkernel-full-smp", title: "X-Kernel, full, SMP", color: "#79b879",
				runtime: ctrbox.Ours, xlibos: ctrbox.XLibOSFull, vcpus: 2, mode: ctrbox.ModeShared, rewriting: true},
		}},
	}
	for i := range all {
		for j := range all[i].configs {
			all[i].configs[j].system = all[i].system
		}
	}
	return all
}

// names are those that choose takes, each once.
func names(envs []environment) []string {
	var all []string
	for _, e := range envs {
		for _, name := range append([]string{e.name}, configNames(e.configs)...) {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

func configNames(cs []config) []string {
	var all []string
	for _, c := range cs {
		all = append(all, c.name)
	}
	return all
}

// choose keeps the environments that are named, whole, and of others the
// configurations that are. With only empty it keeps all.
func choose(envs []environment, only string) ([]environment, error) {
	if only == "" {
		return envs, nil
	}
	wanted := strings.Split(only, ",")
	known := names(envs)
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("-only: no %q; there are: %s", name, strings.Join(known, " "))
		}
	}
	var chosen []environment
	for _, e := range envs {
		if !slices.Contains(wanted, e.name) {
			e.configs = slices.DeleteFunc(slices.Clone(e.configs), func(c config) bool { return !slices.Contains(wanted, c.name) })
		}
		if len(e.configs) > 0 {
			chosen = append(chosen, e)
		}
	}
	return chosen, nil
}
