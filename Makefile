# SPDX-License-Identifier: BSD-3-Clause
#
# One non-recursive Makefile. `make help` lists the targets.
#
#   make CC=clang            another compiler
#   make SAN=asan|tsan|msan  a sanitizer build (asan includes UBSan)
#   make V=1                 show the commands
#
# Every variant builds into a directory of its own, so they never mix; the
# release build of the default compiler is build/crosvm.

CC       := gcc
SAN      :=
VERSION  := 0.1.0
PREFIX   ?= /usr/local
DESTDIR  ?=

COMPILER := $(notdir $(lastword $(filter-out -%,$(CC))))
VARIANT  := $(if $(filter-out gcc cc,$(COMPILER)),$(COMPILER),gcc)$(if $(SAN),-$(SAN))
B        := build/$(VARIANT)
IS_CLANG := $(findstring clang,$(CC))

# One short line a step; V=1 shows the commands.
Q        := $(if $(V),,@)
say       = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')

# A recipe that fails leaves no half-written file behind that looks like its result.
.DELETE_ON_ERROR:
# Built-in rules only slow make down and hide a missing rule of ours.
MAKEFLAGS += --no-builtin-rules --no-builtin-variables

# ---- flags -------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wimplicit-fallthrough \
	-Wvla -Wundef -Wformat=2 -Wmissing-prototypes -Wstrict-prototypes -Wno-missing-field-initializers
ifneq ($(IS_CLANG),)
# KVM's structs end in an array without a length, and are embedded with room for it behind them.
WARNINGS += -Wconditional-uninitialized -Wthread-safety -Wno-gnu-variable-sized-type-not-at-end
endif
# CI=true (and ./test) makes warnings errors; a user's other compiler must not fail on a new one.
ifneq ($(CI)$(WERROR),)
WARNINGS += -Werror
endif

CPPFLAGS := -Isrc -I$(B)/gen -D_GNU_SOURCE -DCROSVM_VERSION='"$(VERSION)"'
# Sanitizers check what is written, not what is fast, and -O1 takes a third less time to compile.
CFLAGS   ?= $(if $(filter asan tsan msan,$(SAN)),-O1,-O2) -g
# The zero-initialised locals are a second net: no byte of the stack leaks to a guest.
COMMON   := -std=gnu17 -pthread -fno-common -fno-strict-aliasing -ffunction-sections -fdata-sections \
	-ftrivial-auto-var-init=zero -ffile-prefix-map='$(CURDIR)'=. \
	$(if $(IS_CLANG),-enable-trivial-auto-var-init-zero-knowing-it-will-be-removed-from-clang -grecord-command-line)

# To gcc's plain "bounds" the array at a struct's end has no bounds (the virtqueue's bits are one); clang knows none
# without a length but those that say so.
BOUNDS   := $(if $(IS_CLANG),bounds,bounds-strict)

ifeq ($(SAN),)
CPPFLAGS += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=$(if $(IS_CLANG),2,3)
COMMON   += -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection \
	-fsanitize=$(BOUNDS),signed-integer-overflow,shift -fsanitize-undefined-trap-on-error
LINK     := -static-pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code,--gc-sections -Wl,-T,src/vm/idle.ld
else
SANITIZE_asan := -fsanitize=address,undefined,$(BOUNDS) -fno-sanitize-recover=all
# TSan knows no fences and gcc says so at each; the accesses around ours are atomic themselves.
SANITIZE_tsan := -fsanitize=thread $(if $(IS_CLANG),,-Wno-tsan)
SANITIZE_msan := -fsanitize=memory -fsanitize-memory-track-origins
# What `make fuzz` builds; the fuzz targets bring libFuzzer's main().
SANITIZE_fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
# A fuzz target's own comparisons and those of a search in a table (a register by its address, what a reset closes) tell
# libFuzzer nothing about the input's bytes; to trace them took a third to a half of the time.
UNTRACED := $(B)/tests/fuzz/%.o $(B)/bus/%.o $(B)/virtio/pci%.o $(B)/virtio/wl_host.o
TRACE_fuzz = $(if $(filter $(UNTRACED),$@),-fno-sanitize-coverage=trace-cmp)
CPPFLAGS += -DSANITIZED
COMMON   += $(or $(SANITIZE_$(SAN)),$(error SAN is asan, tsan or msan)) -fno-omit-frame-pointer
LINK     :=
endif

# The archive: the shared library of Debian 12 does not export io_uring_enable_rings().
LIBS     := -l:liburing.a -l:libjansson.a -l:libseccomp.a

# ---- sources -----------------------------------------------------------------

SRC      := $(sort $(wildcard src/*/*.c))
HDR      := $(sort $(wildcard src/*/*.h))
OBJ      := $(SRC:src/%.c=$(B)/%.o)
MAIN_OBJ := $(B)/cli/main.o
LIB_OBJ  := $(filter-out $(MAIN_OBJ),$(OBJ))
# What sources include and a rule below makes.
GEN      := $(B)/gen/dsdt.h $(B)/gen/seccomp_policies.h

.PHONY: all
all: $(if $(filter gcc,$(VARIANT)),build/crosvm,$(B)/crosvm)

.PHONY: help
help:
	@sed -n 's/^##//p' $(MAKEFILE_LIST)

## make                the release binary, build/crosvm (CC=clang, SAN=asan|tsan|msan: build/VARIANT/crosvm)
build/crosvm: $(B)/crosvm
	@ln -sf $(VARIANT)/crosvm $@

$(B)/crosvm: $(OBJ) src/vm/idle.ld
	$(call say,LINK,$@)
	$(Q)$(CC) $(COMMON) $(CFLAGS) $(LDFLAGS) $(LINK) -o $@ $(OBJ) $(LIBS)

# Flags are part of what a file is built from: a change of them rebuilds it.
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(WARNINGS) $(UNTRACED))' > $@.$$$$; \
		cmp -s $@.$$$$ $@ && rm $@.$$$$ || mv $@.$$$$ $@
.PHONY: FORCE

# Generated headers exist before any object is compiled; after that the .d files know who uses them.
$(B)/%.o: src/%.c $(B)/flags | $(GEN)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(TRACE_$(SAN)) $(WARNINGS) -MMD -MP -c -o $@ $<

# What tests link: an archive, so that a test can put a fake in the place of a module.
$(B)/libcrosvm.a: $(LIB_OBJ)
	$(Q)rm -f $@.new && ar rcs $@.new $^ && mv $@.new $@

# The DSDT as bytes of C. iasl talks even when all is well; warnings fail.
$(B)/gen/dsdt.h: src/x86_64/dsdt.asl
	@mkdir -p $(@D)
	$(call say,IASL,$@)
	$(Q)iasl -we -vs -p $(@:.h=) $< > $(@:.h=.log) 2>&1 || { cat $(@:.h=.log) >&2; exit 1; }
	@{ echo '/* Made by iasl from $<. */'; \
	   echo '#pragma once'; \
	   echo 'static const unsigned char dsdt_aml[] = {'; \
	   od -An -v -tx1 $(@:.h=.aml) | sed 's/ \(..\)/0x\1, /g'; \
	   echo '};'; } > $@

# Seccomp policies as BPF. The compiler of them runs here and now, so no sanitizer and no flag of the
# target's applies to it. Sanitizers make system calls of their own, so their builds only log.
POLICIES        := $(filter-out base_device common_device main_base main_common,$(basename $(notdir $(wildcard seccomp/x86_64/*.policy))))
POLICY_COMPILER := tools/compile-policies.c $(addprefix src/,jail/policy_parse.c jail/policy_constants.c \
	jail/policy_compile.c base/fd.c)

$(B)/host/compile-policies: $(POLICY_COMPILER) $(wildcard src/jail/policy*.h) src/base/fd.h src/base/util.h
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)gcc -std=gnu17 -Isrc -D_GNU_SOURCE -O1 -Wall -Wextra -o $@ $(POLICY_COMPILER) -lseccomp

$(B)/gen/seccomp_policies.h: $(B)/host/compile-policies $(wildcard seccomp/*/*.policy)
	@mkdir -p $(@D)
	$(call say,POLICY,$@)
	$(Q)$< $(if $(SAN),--log-only) seccomp/x86_64 $(POLICIES) > $@
	$(Q)$< seccomp/aarch64 $(filter-out main_%,$(POLICIES)) > $(@:.h=_aarch64.h)

-include $(OBJ:.o=.d)

# ---- tests -------------------------------------------------------------------

UNIT     := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
JOBS     ?= $(shell nproc)

# cmocka catches SIGSEGV and says only that; the sanitizers' reports say where.
SAN_ENV  := ASAN_OPTIONS=handle_segv=2:handle_sigbus=2:handle_sigill=2:handle_sigfpe=2:detect_stack_use_after_return=1 \
	UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1

# The sources and the binary are the same under every sanitizer: looked at once.
CHECKS   := 'tools/check-includes' 'tools/check-includes --self-test' \
	'tools/check-size src $(OBJ)' 'tools/check-size --self-test' \
	'tools/audit-policies --self-test' \
	'tools/plant-bugs --check' 'tools/plant-bugs --self-test' \
	'tests/unit/check-hardening $(B)/crosvm $(OBJ)' \
	'tests/unit/check-hardening build/guest/crosvm-wl' \
	'tests/unit/check-policies $(B)/host/compile-policies seccomp/x86_64 seccomp/aarch64' \
	'tests/unit/check-block-cost $(B)/blockqueue' \
	'tests/unit/check-net-cost $(B)/netqueue'

$(B)/tests/%.o: tests/%.c $(B)/flags | $(GEN)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS) $(COMMON) $(TRACE_$(SAN)) $(WARNINGS) -MMD -MP -c -o $@ $<

# What of crosvm-wl is tested here: all but its start and its driver.
WL_GUEST := $(patsubst guest/wl/%.c,$(B)/tests/guest-wl/%.o,$(filter-out %/main.c %/device.c,$(wildcard guest/wl/*.c)))
$(WL_GUEST): $(B)/tests/guest-wl/%.o: guest/wl/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(WARNINGS) -MMD -MP -c -o $@ $<
$(addprefix $(B)/tests/unit/,test_wl_proxy test_wl_pumps): $(WL_GUEST)

$(UNIT): %: %.o $(B)/libcrosvm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(COMMON) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

.PHONY: tests
tests: $(UNIT)

## make check          unit tests, layer and size checks, hardening of the binary (CC=, SAN= as above)
.PHONY: check
# The slow ones wait most of their time; the longest that works is a check, so these begin.
check: $(UNIT) $(if $(SAN),,$(B)/crosvm build/guest/crosvm-wl $(B)/blockqueue $(B)/netqueue)
	$(Q)$(SAN_ENV) tools/run-unit-tests -j $$(($(JOBS) + 2)) $(if $(SAN),,$(CHECKS)) $(UNIT)

-include $(UNIT:=.d) $(WL_GUEST:.o=.d)

# ---- lint --------------------------------------------------------------------

# Each file that passed leaves a stamp, so that a second `make lint` looks at what changed only. Not looked at
# but for their layout: the freestanding guests, which are code for another machine, and the proofs, which
# speak CBMC's language.
PROGRAMS := $(sort $(wildcard guest/*.c guest/wl/*.c bench/*.c tests/host/*.c))
LINTED   := $(SRC) $(wildcard tools/*.c) $(PROGRAMS) $(sort $(wildcard tests/unit/*.c tests/fuzz/*.c))
CPPCHECK := src guest bench tests/host tests/unit
LINT     := build/lint
# Tools that are no gcc know no flags of gcc's; what they need to parse the code is this.
PARSE    := -Isrc -Itests -I$(B)/gen -D_GNU_SOURCE -DCROSVM_VERSION='"$(VERSION)"'
# Changed ones, too, are new to what includes them.
LINTED_HDR := $(HDR) $(wildcard tests/*/*.h guest/wl/*.h bench/*.h)
FORMATTED = $(sort $(wildcard $(addsuffix /*.[ch],src/* tests/* guest guest/wl bench tools)))
# Of a tarball git knows nothing.
TRACKED  := $(or $(shell git ls-files 2>/dev/null),$(shell find . -path ./build -prune -o -type f -print))
SCRIPTS  := $(shell grep -lsE '^\#! ?/bin/sh' $(TRACKED) /dev/null)
PYTHON   := $(filter %.py,$(TRACKED)) $(shell grep -lsE '^\#!.*python3' $(filter-out %.py,$(TRACKED)) /dev/null)

## make lint           clang-format, clang-tidy, cppcheck, gcc -fanalyzer, shellcheck, pyflakes, mandoc
.PHONY: lint lint-format lint-tidy lint-cppcheck lint-analyzer lint-scripts lint-manual
lint: lint-format lint-tidy lint-cppcheck lint-analyzer lint-scripts lint-manual

lint-format:
	$(Q)clang-format --dry-run -Werror $(FORMATTED)

lint-tidy: $(LINTED:%=$(LINT)/%.tidy)
$(LINT)/%.tidy: % $(LINTED_HDR) .clang-tidy tests/.clang-tidy $(GEN)
	@mkdir -p $(@D)
	$(call say,TIDY,$<)
	$(Q)clang-tidy --quiet $< -- $(PARSE) -std=gnu17 > $@.log 2>&1 || { cat $@.log; exit 1; }
	@touch $@

lint-cppcheck: $(GEN)
	@mkdir -p $(LINT)/cppcheck
	$(call say,CHECK,$(CPPCHECK))
	$(Q)cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability,style \
		--inline-suppr --suppressions-list=tools/cppcheck-suppressions --cppcheck-build-dir=$(LINT)/cppcheck \
		--std=c11 --library=posix,gnu -j $(JOBS) $(PARSE) \
		--template='{file}:{line}: {severity}: {message} [{id}]' $(CPPCHECK)

# -O2, since the analyzer follows inlined functions. Off is malloc-leak: gcc 12 calls an object lost
# when only a pointer to its first member is kept. clang-tidy and ASan look for leaks too.
lint-analyzer: $(patsubst %,$(LINT)/%.analyzed,$(SRC) $(PROGRAMS))
$(LINT)/%.analyzed: % $(LINTED_HDR) $(GEN)
	@mkdir -p $(@D)
	$(call say,ANALYZE,$<)
	$(Q)gcc $(PARSE) -std=gnu17 -O2 -fanalyzer -Wno-analyzer-malloc-leak -Werror -c -o $@ $<

# Off is SC2013: `for word in $(cat /proc/cmdline)` wants the words, not lines.
lint-scripts:
	$(Q)shellcheck -x -e SC2013 $(SCRIPTS)
	$(Q)pyflakes3 $(PYTHON)

lint-manual:
	$(Q)mandoc -T lint -W warning $(wildcard doc/*.1) > $(LINT).manual 2>&1 || { cat $(LINT).manual; exit 1; }

## make format         lay the C sources out as .clang-format says
.PHONY: format
format:
	$(Q)clang-format -i $(FORMATTED)

## compile_commands.json   for editors and language servers
compile_commands.json: FORCE
	$(Q)tools/compile-commands $(CC) $(CPPFLAGS) -Itests $(CFLAGS) $(COMMON) $(WARNINGS) -- \
		$(SRC) $(wildcard tests/unit/*.c tests/fuzz/*.c) > $@

# ---- fuzzing -----------------------------------------------------------------

FUZZ     := $(patsubst tests/fuzz/%.c,$(B)/tests/fuzz/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_SECONDS ?= 600

## make fuzz           every tests/fuzz/fuzz_*.c for FUZZ_SECONDS (600) each; fuzz-short: 5 seconds each
.PHONY: fuzz fuzz-short fuzz-run
fuzz:
	+$(Q)$(MAKE) --no-print-directory CC=clang SAN=fuzz FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz-run
fuzz-short:
	+$(Q)$(MAKE) --no-print-directory CC=clang SAN=fuzz FUZZ_SECONDS=5 fuzz-run

ifeq ($(SAN),fuzz)
$(FUZZ): %: %.o $(B)/libcrosvm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(COMMON) -fsanitize=fuzzer $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# What of crosvm-wl its client meets.
$(B)/tests/fuzz/fuzz_wl_client: $(patsubst %,$(B)/tests/guest-wl/%.o,bytes objects pumps requests spool)

-include $(FUZZ:=.d)

fuzz-run: $(FUZZ)
	$(Q)tools/run-unit-tests -j $(JOBS) --timeout $$(($(FUZZ_SECONDS) + 120)) \
		$(FUZZ:%='tools/run-fuzzer % $(FUZZ_SECONDS)')
endif

# ---- proofs ------------------------------------------------------------------

## make proofs         CBMC's proofs of tests/proofs, and that they find planted bugs; proofs-short: the quick ones
.PHONY: proofs proofs-short
proofs:
	$(Q)tests/proofs/run -j $(JOBS)
	$(Q)tests/proofs/run -j $(JOBS) --self-test
proofs-short:
	$(Q)tests/proofs/run -j $(JOBS) --short

# ---- planted bugs --------------------------------------------------------------

## make planted        that the tests find the bugs of tests/planted, each built into a copy of the tree; half an hour
.PHONY: planted
planted:
	$(Q)$(SAN_ENV) tools/plant-bugs -v -j $(JOBS)

# ---- freestanding guests and the benchmark's floor ---------------------------

# Guests are machine code for the vCPU, so no flag of the host's programs applies.
GUEST_CC    := gcc
GUEST_FLAGS := -std=gnu17 -O2 -g -ffreestanding -fno-pic -fno-pie -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing \
	-Wall -Wextra -Wshadow -Itests/guest
GUEST_LINK  := -nostdlib -static -no-pie -Wl,-T,tests/guest/guest.ld,--build-id=none,-z,noexecstack,--no-warn-rwx-segments
GUEST_SRC   := $(sort $(wildcard tests/guest/*.c tests/guest/*.S))
GUESTS      := $(patsubst tests/guest/%,build/guest/%.elf,$(basename $(GUEST_SRC))) \
	$(patsubst guest/%.c,build/guest/%,$(sort $(wildcard guest/*.c))) build/guest/crosvm-wl
# Programs of Linux guests; crosvm-wl is installed, and begins as root.
GUEST_TOOL  := $(GUEST_CC) -std=gnu17 -O2 -g -D_GNU_SOURCE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -Wall -Wextra -Wshadow \
	-fPIE -fstack-protector-strong -fstack-clash-protection -ffile-prefix-map='$(CURDIR)'=. \
	-static-pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code

## make guests         the freestanding guests of tests/guest, build/guest/*.elf, and what Linux guests run
.PHONY: guests
guests: $(GUESTS)

build/guest/%.c.o: tests/guest/%.c
	@mkdir -p $(@D)
	$(Q)$(GUEST_CC) $(GUEST_FLAGS) -MMD -MP -c -o $@ $<
build/guest/%.S.o: tests/guest/%.S
	@mkdir -p $(@D)
	$(Q)$(GUEST_CC) $(GUEST_FLAGS) -MMD -MP -c -o $@ $<
build/guest/%.elf: build/guest/%.c.o tests/guest/guest.ld
	$(call say,GUEST,$@)
	$(Q)$(GUEST_CC) $(GUEST_LINK) -o $@ $(filter %.o,$^)
build/guest/%.elf: build/guest/%.S.o tests/guest/guest.ld
	$(call say,GUEST,$@)
	$(Q)$(GUEST_CC) $(GUEST_LINK) -o $@ $(filter %.o,$^)
# The objects stay, for the next change.
.SECONDARY:

-include $(GUEST_SRC:tests/guest/%=build/guest/%.d)

# Programs for Linux guests: static, because a guest has no libraries.
build/guest/%: guest/%.c Makefile
	@mkdir -p $(@D)
	$(call say,GUEST,$@)
	$(Q)$(GUEST_TOOL) -o $@ $<

build/guest/crosvm-wl: $(wildcard guest/wl/*.[ch]) Makefile
	@mkdir -p $(@D)
	$(call say,GUEST,$@)
	$(Q)$(GUEST_TOOL) -Wconversion -o $@ $(filter %.c,$^)

# The least that a VMM can do, which benchmarks compare with: no hardening, nothing of ours.
# And a Wayland client, which runs on hosts and guests alike.
build/floor build/wlframes: build/%: bench/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)gcc -std=gnu17 -O2 -static -D_GNU_SOURCE -Wall -Wextra -o $@ $<

# Drivers at a queue of the block and of the network device, without a guest.
build/blockqueue build/netqueue build/vsockqueue: build/%: $(B)/%
	@ln -sf $(VARIANT)/$(@F) $@

$(B)/blockqueue $(B)/netqueue $(B)/vsockqueue: $(B)/%: bench/%.c bench/driver.h $(B)/libcrosvm.a
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(WARNINGS) $(LDFLAGS) -o $@ $(filter-out %.h,$^) $(LIBS)

# The entries of the guests written in C are included by the assembler, which -MMD does not see.
$(patsubst tests/guest/%,build/guest/%.o,$(wildcard tests/guest/*.c)): $(wildcard tests/guest/*.inc)

# ---- benchmarks ----------------------------------------------------------------

BENCH_HOST ?= tests/host/run --icount --

## make soak           devices and main process killed at random, 20 and 500 times; all combinations of the Linux guests' tests:
##                     kernels, vCPUs, disks; all tests of the test host; more than an hour in the nested host
.PHONY: soak
soak: build/crosvm guests
	CROSVM_SOAK=1 /usr/bin/python3 -m pytest -ra -p no:cacheprovider tests/kvm/test_multiprocess.py \
		tests/kvm/test_taken_over.py tests/kvm/test_hostile.py tests/kvm/test_hostile_virtio.py \
		tests/kvm/test_hostile_net.py tests/kvm/test_hostile_vsock.py
	CROSVM_SOAK=1 /usr/bin/python3 -m pytest -ra -p no:cacheprovider tests/kvm/test_control.py -k stop_at_any_moment
	[ $$(id -u) -ne 0 ] || guest/fetch-debian
	guest/fetch-kernel generic-6.12
	/usr/bin/python3 -m pytest -ra -p no:cacheprovider --soak tests/host
	tests/vm/run -- --soak

## make audit          rules of seccomp policies that no call of tests/kvm needs; half an hour
.PHONY: audit
audit: build/crosvm guests
	tools/audit-policies

## make bench          every benchmark of bench/, against floor and QEMU; doc/benchmarks.md explains
.PHONY: bench
bench: build/crosvm guests build/floor build/blockqueue build/netqueue build/vsockqueue build/wlframes
	bench/syscalls
	bench/memory
	bench/memory --vms 8
	bench/start
	tests/unit/check-block-cost build/blockqueue
	tests/unit/check-net-cost build/netqueue
	build/vsockqueue
	build/vsockqueue -r
	build/vsockqueue -p
	bench/multiprocess
	bench/control
	bench/block --bare
	$(BENCH_HOST) bench/boot
	tests/host/run --nested -- bench/block
	tests/host/run --nested -- bench/net
	tests/host/run --nested -- bench/vsock
	tests/host/run -- bench/wl

# ---- installation ------------------------------------------------------------

BINDIR   := $(DESTDIR)$(PREFIX)/bin
GUESTDIR := $(DESTDIR)$(PREFIX)/lib/crosvm
MANDIR   := $(DESTDIR)$(PREFIX)/share/man/man1
COMPDIR  := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
COMPLETION := $(wildcard doc/crosvm.bash)

## make install        below DESTDIR/PREFIX (/usr/local); make uninstall
.PHONY: install uninstall
install: $(B)/crosvm build/guest/crosvm-wl
	install -D -s -m 755 $(B)/crosvm $(BINDIR)/crosvm
	install -D -s -m 755 build/guest/crosvm-wl $(GUESTDIR)/crosvm-wl
	install -D -m 644 doc/crosvm.1 $(MANDIR)/crosvm.1
	$(if $(COMPLETION),install -D -m 644 $(COMPLETION) $(COMPDIR)/crosvm)

uninstall:
	rm -f $(BINDIR)/crosvm $(GUESTDIR)/crosvm-wl $(MANDIR)/crosvm.1 $(COMPDIR)/crosvm

## make deb            a Debian package, build/crosvm_VERSION_ARCHITECTURE.deb; needs no root
.PHONY: deb
deb: $(B)/crosvm build/guest/crosvm-wl
	$(Q)MAKE='$(MAKE)' tools/make-deb $(VERSION) build

## make clean          everything that was built
.PHONY: clean
clean:
	rm -rf build compile_commands.json
