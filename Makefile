# SPDX-License-Identifier: BSD-3-Clause
#
# One non-recursive Makefile. `make help` lists the targets.
#
#   make CC=clang            another compiler
#   make SAN=asan|tsan|msan  a sanitizer build (asan includes UBSan)
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
CPPFLAGS += -DSANITIZED
COMMON   += $(or $(SANITIZE_$(SAN)),$(error SAN is asan, tsan or msan)) -fno-omit-frame-pointer
LINK     :=
endif

# ---- sources -----------------------------------------------------------------

SRC      := $(sort $(wildcard src/*/*.c))
OBJ      := $(SRC:src/%.c=$(B)/%.o)
MAIN_OBJ := $(B)/cli/main.o
LIB_OBJ  := $(filter-out $(MAIN_OBJ),$(OBJ))

.PHONY: all
all: build/crosvm

.PHONY: help
help:
	@sed -n 's/^##//p' $(MAKEFILE_LIST)

## make                the release binary, build/crosvm (CC=clang, SAN=asan|tsan|msan: build/VARIANT/crosvm)
build/crosvm: $(B)/crosvm
	@ln -sf $(VARIANT)/crosvm $@

$(B)/crosvm: $(OBJ)
	$(CC) $(COMMON) $(CFLAGS) $(LDFLAGS) $(LINK) -o $@ $^

# Flags are part of what a file is built from: a change of them rebuilds it.
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(WARNINGS)' | cmp -s - $@ || \
		echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(WARNINGS)' > $@
FORCE:

$(B)/%.o: src/%.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(WARNINGS) -MMD -MP -c -o $@ $<

-include $(OBJ:.o=.d)
