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

VARIANT  := $(if $(filter-out gcc cc,$(notdir $(CC))),$(notdir $(CC)),gcc)$(if $(SAN),-$(SAN))
B        := build/$(VARIANT)
IS_CLANG := $(findstring clang,$(CC))

# One short line a step; V=1 shows the commands.
Q        := $(if $(V),,@)
say       = $(if $(V),,@printf '  %-7s %s\n' $(1) $(2))

# A recipe that fails leaves no half-written file behind that looks like its result.
.DELETE_ON_ERROR:
# Built-in rules only slow make down and hide a missing rule of ours.
MAKEFLAGS += --no-builtin-rules --no-builtin-variables

# ---- flags -------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wimplicit-fallthrough \
	-Wvla -Wundef -Wformat=2 -Wmissing-prototypes -Wstrict-prototypes -Wno-missing-field-initializers
ifneq ($(IS_CLANG),)
WARNINGS += -Wconditional-uninitialized -Wthread-safety
endif
# CI=true (and ./test) makes warnings errors; a user's other compiler must not fail on a new one.
ifneq ($(CI)$(WERROR),)
WARNINGS += -Werror
endif

CPPFLAGS := -Isrc -I$(B)/gen -D_GNU_SOURCE -DCROSVM_VERSION='"$(VERSION)"'
CFLAGS   ?= -O2 -g
# The zero-initialised locals are a second net: no byte of the stack leaks to a guest.
COMMON   := -std=gnu17 -pthread -fno-common -fno-strict-aliasing -ffunction-sections -fdata-sections \
	-ftrivial-auto-var-init=zero \
	$(if $(IS_CLANG),-enable-trivial-auto-var-init-zero-knowing-it-will-be-removed-from-clang)

ifeq ($(SAN),)
CPPFLAGS += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=$(if $(IS_CLANG),2,3)
COMMON   += -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection \
	-fsanitize=bounds,signed-integer-overflow,shift -fsanitize-undefined-trap-on-error
LINK     := -static-pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code,--gc-sections
else
SANITIZE_asan := -fsanitize=address,undefined -fno-sanitize-recover=all
SANITIZE_tsan := -fsanitize=thread
SANITIZE_msan := -fsanitize=memory -fsanitize-memory-track-origins
# What `make fuzz` builds; the fuzz targets bring libFuzzer's main().
SANITIZE_fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
CPPFLAGS += -DSANITIZED
COMMON   += $(or $(SANITIZE_$(SAN)),$(error SAN is asan, tsan or msan)) -fno-omit-frame-pointer
LINK     :=
endif

# ---- sources -----------------------------------------------------------------

SRC      := $(sort $(wildcard src/*/*.c))
HDR      := $(sort $(wildcard src/*/*.h))
OBJ      := $(SRC:src/%.c=$(B)/%.o)
MAIN_OBJ := $(B)/cli/main.o
LIB_OBJ  := $(filter-out $(MAIN_OBJ),$(OBJ))
# What sources include and a rule below makes.
GEN      := $(B)/gen/dsdt.h

.PHONY: all
all: $(if $(filter gcc,$(VARIANT)),build/crosvm,$(B)/crosvm)

.PHONY: help
help:
	@sed -n 's/^##//p' $(MAKEFILE_LIST)

## make                the release binary, build/crosvm (CC=clang, SAN=asan|tsan|msan: build/VARIANT/crosvm)
build/crosvm: $(B)/crosvm
	@ln -sf $(VARIANT)/crosvm $@

$(B)/crosvm: $(OBJ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(COMMON) $(CFLAGS) $(LDFLAGS) $(LINK) -o $@ $^

# Flags are part of what a file is built from: a change of them rebuilds it.
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(WARNINGS))' > $@.$$$$; \
		cmp -s $@.$$$$ $@ && rm $@.$$$$ || mv $@.$$$$ $@
FORCE:

# Generated headers exist before any object is compiled; after that the .d files know who uses them.
$(B)/%.o: src/%.c $(B)/flags | $(GEN)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(WARNINGS) -MMD -MP -c -o $@ $<

# What tests link: an archive, so that a test can put a fake in the place of a module.
$(B)/libcrosvm.a: $(LIB_OBJ)
	$(Q)rm -f $@ && ar rcs $@ $^

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
	'tests/unit/check-hardening $(B)/crosvm $(OBJ)'

$(B)/tests/%.o: tests/%.c $(B)/flags | $(GEN)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS) $(COMMON) $(WARNINGS) -MMD -MP -c -o $@ $<

$(UNIT): %: %.o $(B)/libcrosvm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(COMMON) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka

## make check          unit tests, layer and size checks, hardening of the binary (CC=, SAN= as above)
.PHONY: check
check: $(UNIT) $(if $(SAN),,$(B)/crosvm)
	$(Q)$(SAN_ENV) tools/run-unit-tests -j $(JOBS) $(UNIT) $(if $(SAN),,$(CHECKS))

-include $(UNIT:=.d)
