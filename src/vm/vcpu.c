// SPDX-License-Identifier: BSD-3-Clause
/*
 * vCPU threads. Every port, address and value in an exit is the guest's; the
 * buses cope with all of them, and no exit ends anything but this VM.
 */
#include "vm/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/advice.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "kvm/coalesced.h"

struct vcpu {
	struct kvm_vcpu kvm;
	struct vcpu_set *set;
	pthread_t thread;
	bool started;
	_Atomic uint64_t exits[VCPU_EXIT_KINDS]; /* written by its own thread only */
};

/* What the main thread wants of the vCPU threads. */
enum order { ORDER_RUN, ORDER_PAUSE, ORDER_STOP };

struct vcpu_set {
	const struct sandbox *sandbox;
	struct platform *platform;
	struct lifecycle *lifecycle;
	int (*make_machine)(void *owner);
	void *owner;
	int made;       /* what that returned; set before `entering` is posted */
	sem_t entering; /* posted by vCPU 0 when it is about to run the guest, or gives up */
	bool entered;   /* the main thread has seen that */
	_Atomic unsigned order; /* enum order; changed under the mutex, read without */
	/* Writes that KVM keeps for us; NULL: none. Set once, while vCPUs run. */
	_Atomic(struct kvm_coalesced_mmio_ring *) coalesced;
	pthread_mutex_t taking; /* of one of those, until it is done */
	pthread_mutex_t mutex;
	pthread_cond_t changed; /* `order` or `away` */
	unsigned away;          /* threads that are held or have ended; guarded by the mutex */
	unsigned count;
	struct vcpu vcpus[];
};

static const char *const exit_names[VCPU_EXIT_KINDS] = {
	[VCPU_EXIT_INTERRUPTED] = "interrupted",
	[VCPU_EXIT_PORT] = "port",
	[VCPU_EXIT_MMIO] = "mmio",
	[VCPU_EXIT_SHUTDOWN] = "shutdown",
	[VCPU_EXIT_INTERNAL_ERROR] = "internal error",
	[VCPU_EXIT_FAIL_ENTRY] = "failed entry",
	[VCPU_EXIT_UNEXPECTED] = "unexpected",
};

/* One that nobody sends us, and no real-time one: those are lost while the user's queue of signals
 * is full. */
enum { KICK = SIGURG };

/* A signal with this handler makes KVM_RUN return; there is nothing else to do. */
static void on_kick(int signal_number)
{
	(void)signal_number;
}

static void init_locks(struct vcpu_set *set)
{
	pthread_condattr_t monotonic;

	sem_init(&set->entering, 0, 0);
	pthread_mutex_init(&set->taking, NULL);
	pthread_mutex_init(&set->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&set->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

int vcpu_set_create(unsigned count, struct lifecycle *lifecycle, struct vcpu_set **ret_set)
{
	struct vcpu_set *set = calloc(1, sizeof(*set) + count * sizeof(set->vcpus[0]));

	if (set == NULL) {
		log_error("no memory for %u vCPUs", count);
		return -ENOMEM;
	}
	set->lifecycle = lifecycle;
	set->count = count;
	init_locks(set);
	for (unsigned i = 0; i < count; i++) {
		set->vcpus[i].set = set;
		set->vcpus[i].kvm.fd = -1;
	}
	*ret_set = set;
	return 0;
}

int vcpu_set_add_vcpus(struct vcpu_set *set, const struct kvm_host *host,
	const struct kvm_machine *machine, struct platform *platform)
{
	int r = 0;

	set->platform = platform;
	for (unsigned i = 0; r == 0 && i < set->count; i++)
		r = kvm_vcpu_create(host, machine, i, &set->vcpus[i].kvm);
	return r;
}

int vcpu_set_model(struct vcpu_set *set, struct cpu_model *model)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < set->count; i++)
		r = cpu_model_apply(model, &set->vcpus[i].kvm);
	return r;
}

void vcpu_set_entry(struct vcpu_set *set, const struct kernel_image *image)
{
	cpu_set_entry(&set->vcpus[0].kvm, image);
}

static void access_bus(struct bus *bus, const struct vcpu_exit *exit)
{
	for (unsigned i = 0; i < exit->count; i++) {
		uint8_t *data = exit->data + (size_t)i * exit->size;

		if (exit->is_write)
			bus_write(bus, exit->address, data, exit->size);
		else
			bus_read(bus, exit->address, data, exit->size);
	}
}

static void handle_port(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
	access_bus(platform_ports(vcpu->set->platform), exit);
}

static void handle_mmio(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
	access_bus(platform_mmio(vcpu->set->platform), exit);
}

/* First this, then the look at the order: a new one that comes between is seen. */
static void handle_interrupted(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
	(void)exit;
	kvm_vcpu_clear_interrupt(&vcpu->kvm);
}

static void handle_shutdown(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
	(void)exit;
	lifecycle_end(vcpu->set->lifecycle, VM_END_TRIPLE_FAULT);
}

static void handle_kvm_error(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
	kvm_vcpu_log_state(&vcpu->kvm, exit);
	lifecycle_end(vcpu->set->lifecycle, VM_END_KVM_ERROR);
}

static void (*const exit_handlers[VCPU_EXIT_KINDS])(
	struct vcpu *vcpu, const struct vcpu_exit *exit) = {
	[VCPU_EXIT_INTERRUPTED] = handle_interrupted,
	[VCPU_EXIT_PORT] = handle_port,
	[VCPU_EXIT_MMIO] = handle_mmio,
	[VCPU_EXIT_SHUTDOWN] = handle_shutdown,
	[VCPU_EXIT_INTERNAL_ERROR] = handle_kvm_error,
	[VCPU_EXIT_FAIL_ENTRY] = handle_kvm_error,
	[VCPU_EXIT_UNEXPECTED] = handle_kvm_error,
};

/* As many as there are now: vCPUs may go on to write. */
void vcpu_set_take_writes(struct vcpu_set *set)
{
	struct kvm_coalesced_mmio_ring *ring = atomic_load(&set->coalesced);
	struct vcpu_exit write;

	if (ring == NULL || kvm_coalesced_count(ring) == 0)
		return;
	pthread_mutex_lock(&set->taking);
	unsigned count = kvm_coalesced_count(ring);

	for (unsigned i = 0; i < count; i++) {
		kvm_coalesced_get(ring, i, &write);
		access_bus(platform_ports(set->platform), &write);
	}
	kvm_coalesced_done(ring, count);
	pthread_mutex_unlock(&set->taking);
}

/* Says that this vCPU is away from the guest, until the order is no longer to pause. */
static void be_held(struct vcpu_set *set)
{
	pthread_mutex_lock(&set->mutex);
	set->away++;
	pthread_cond_broadcast(&set->changed);
	while (atomic_load(&set->order) == ORDER_PAUSE)
		pthread_cond_wait(&set->changed, &set->mutex);
	set->away--;
	pthread_mutex_unlock(&set->mutex);
}

static bool may_run(struct vcpu *vcpu)
{
	while (atomic_load(&vcpu->set->order) == ORDER_PAUSE)
		be_held(vcpu->set);
	return atomic_load(&vcpu->set->order) == ORDER_RUN &&
	       lifecycle_get(vcpu->set->lifecycle) == VM_RUNNING;
}

static void count_exit(struct vcpu *vcpu, enum vcpu_exit_kind kind)
{
	uint64_t count = atomic_load_explicit(&vcpu->exits[kind], memory_order_relaxed);

	atomic_store_explicit(&vcpu->exits[kind], count + 1, memory_order_relaxed);
}

static void leave_for_good(struct vcpu_set *set)
{
	pthread_mutex_lock(&set->mutex);
	set->away++;
	pthread_cond_broadcast(&set->changed);
	pthread_mutex_unlock(&set->mutex);
}

static void run_guest(struct vcpu *vcpu)
{
	while (may_run(vcpu)) {
		struct vcpu_exit exit;
		int r = kvm_vcpu_run(&vcpu->kvm, &exit);

		if (r < 0) {
			log_error("KVM_RUN of vCPU %u failed: %s", vcpu->kvm.index, strerror(-r));
			exit = (struct vcpu_exit){ .kind = VCPU_EXIT_UNEXPECTED };
		}
		count_exit(vcpu, exit.kind);
		/* What KVM kept of its writes came before this exit. */
		vcpu_set_take_writes(vcpu->set);
		exit_handlers[exit.kind](vcpu, &exit);
	}
	leave_for_good(vcpu->set);
}

static void enter_sandbox(struct vcpu_set *set)
{
	if (sandbox_enter(set->sandbox, "main_vcpu") < 0)
		lifecycle_end(set->lifecycle, VM_END_HOST);
}

/* Runs until the set stops or the guest is at its end; then no vCPU has any business left. */
static void *run_vcpu(void *argument)
{
	struct vcpu *vcpu = argument;

	enter_sandbox(vcpu->set);
	run_guest(vcpu);
	return NULL;
}

static void *run_first_vcpu(void *argument)
{
	struct vcpu *vcpu = argument;
	struct vcpu_set *set = vcpu->set;
	int r = set->make_machine(set->owner);

	set->made = r;
	if (r == 0)
		enter_sandbox(set);
	sem_post(&set->entering);
	if (r == 0)
		run_guest(vcpu);
	return NULL;
}

static int start_thread(struct vcpu_set *set, unsigned index, void *(*function)(void *argument))
{
	struct vcpu *vcpu = &set->vcpus[index];
	int r = thread_start(&vcpu->thread, function, vcpu);

	if (r < 0) {
		const char *limit = advice_limit(-r);

		log_error("cannot start the thread of vCPU %u: %s; %s%s", index, strerror(-r),
			limit != NULL ? limit : "the host is short of memory",
			set->count > 1 ? ", or pass fewer --cpus" : "");
	}
	vcpu->started = r == 0;
	return r;
}

int vcpu_set_start_first(struct vcpu_set *set, const struct sandbox *sandbox,
	int (*make_machine)(void *owner), void *owner)
{
	const struct sigaction kick = { .sa_handler = on_kick };

	if (sigaction(KICK, &kick, NULL) < 0)
		return -errno;
	set->sandbox = sandbox;
	set->make_machine = make_machine;
	set->owner = owner;
	return start_thread(set, 0, run_first_vcpu);
}

/* Returns when the thread of vCPU 0 is done with the machine, with its result. */
static int wait_until_made(struct vcpu_set *set)
{
	if (!set->entered)
		thread_await(&set->entering);
	set->entered = true;
	return set->made;
}

int vcpu_set_start_others(struct vcpu_set *set)
{
	/* What is still to be done can wait until the guest has its processor. */
	int r = wait_until_made(set);

	for (unsigned i = 1; r == 0 && i < set->count; i++)
		r = start_thread(set, i, run_vcpu);
	return r;
}

bool vcpu_set_coalesce(
	struct vcpu_set *set, const struct kvm_host *host, const struct kvm_machine *machine)
{
	struct kvm_coalesced_mmio_ring *ring = kvm_coalesced_ring(host, &set->vcpus[0].kvm);
	size_t count;
	const struct port_range *ports = platform_quiet_ports(&count);

	if (ring == NULL)
		return false;
	/* First this: what KVM keeps from then on, somebody takes. */
	atomic_store(&set->coalesced, ring);
	for (size_t i = 0; i < count; i++) {
		int r = kvm_coalesced_add(machine, ports[i].port, ports[i].size);

		if (r < 0)
			log_debug("writes to port 0x%x are not coalesced: %s", ports[i].port,
				strerror(-r));
	}
	return true;
}

static void give_order(struct vcpu_set *set, enum order order)
{
	pthread_mutex_lock(&set->mutex);
	atomic_store(&set->order, order);
	pthread_cond_broadcast(&set->changed);
	pthread_mutex_unlock(&set->mutex);
}

/* Gets the threads out of the guest. After the order, which they look at then. */
static void kick_all(struct vcpu_set *set)
{
	for (unsigned i = 0; i < set->count; i++) {
		struct vcpu *vcpu = &set->vcpus[i];

		if (!vcpu->started)
			continue;
		kvm_vcpu_interrupt(&vcpu->kvm);
		pthread_kill(vcpu->thread, KICK);
	}
}

static int wait_until_all_are_away(struct vcpu_set *set, unsigned timeout_ms)
{
	uint64_t until_ns = clock_monotonic_ns() + timeout_ms * NS_PER_MS;
	const struct timespec until = {
		.tv_sec = (time_t)(until_ns / NS_PER_S),
		.tv_nsec = (long)(until_ns % NS_PER_S),
	};
	int r = 0;

	pthread_mutex_lock(&set->mutex);
	while (set->away < set->count && r == 0)
		r = pthread_cond_timedwait(&set->changed, &set->mutex, &until);
	if (set->away == set->count)
		r = 0;
	pthread_mutex_unlock(&set->mutex);
	return -r;
}

int vcpu_set_pause(struct vcpu_set *set, unsigned timeout_ms)
{
	give_order(set, ORDER_PAUSE);
	kick_all(set);
	int r = wait_until_all_are_away(set, timeout_ms);

	if (r < 0)
		give_order(set, ORDER_RUN);
	return r;
}

void vcpu_set_resume(struct vcpu_set *set)
{
	for (unsigned i = 0; i < set->count; i++)
		kvm_vcpu_tell_paused(&set->vcpus[i].kvm);
	give_order(set, ORDER_RUN);
}

unsigned vcpu_set_count(const struct vcpu_set *set)
{
	return set->count;
}

uint64_t vcpu_set_exits(const struct vcpu_set *set, enum vcpu_exit_kind kind)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < set->count; i++)
		sum += atomic_load_explicit(&set->vcpus[i].exits[kind], memory_order_relaxed);
	return sum;
}

static void log_exits(const struct vcpu *vcpu)
{
	for (unsigned kind = 0; kind < VCPU_EXIT_KINDS; kind++)
		if (vcpu->exits[kind] != 0)
			log_debug("vCPU %u: %" PRIu64 " %s exits", vcpu->kvm.index,
				atomic_load(&vcpu->exits[kind]), exit_names[kind]);
}

void vcpu_set_stop(struct vcpu_set *set)
{
	if (set == NULL)
		return;
	give_order(set, ORDER_STOP);
	if (set->vcpus[0].started && wait_until_made(set) == 0)
		kick_all(set);
	for (unsigned i = 0; i < set->count; i++) {
		struct vcpu *vcpu = &set->vcpus[i];

		if (!vcpu->started)
			continue;
		pthread_join(vcpu->thread, NULL);
		vcpu->started = false;
		log_exits(vcpu);
	}
}

void vcpu_set_free(struct vcpu_set *set)
{
	if (set == NULL)
		return;
	for (unsigned i = 0; i < set->count; i++)
		kvm_vcpu_close(&set->vcpus[i].kvm);
	sem_destroy(&set->entering);
	pthread_cond_destroy(&set->changed);
	pthread_mutex_destroy(&set->mutex);
	pthread_mutex_destroy(&set->taking);
	free(set);
}
