#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Runs in a guest: prints what it found out about its machine, in sections that vm.sections() takes apart.

section() { echo "=== $1"; }

section dmesg
dmesg -r
section tables
for table in /sys/firmware/acpi/tables/*; do
	[ -f "$table" ] && echo "${table##*/} $(base64 -w 0 "$table")"
done
section clocksources
cat /sys/devices/system/clocksource/clocksource0/available_clocksource
section clocksource
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
section clockevent
cat /sys/devices/system/clockevents/clockevent0/current_device
section interrupts
cat /proc/interrupts
section cpuinfo
cat /proc/cpuinfo
section pci
cat /sys/bus/pci/devices/*/vendor
