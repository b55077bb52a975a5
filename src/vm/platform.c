// SPDX-License-Identifier: BSD-3-Clause
/*
 * Puts the fixed devices on their buses and connects them with the interrupt
 * controllers and the VM's lifecycle. The guest drives all of it.
 */
#include "vm/platform.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "bus/acpi_pm.h"
#include "bus/cmos.h"
#include "bus/i8042.h"
#include "x86_64/platform.h"

/* An ISA interrupt that several devices share: high while any of them pulls. */
struct shared_irq {
	const struct kvm_machine *machine;
	unsigned gsi;
	unsigned pulling;
	pthread_mutex_t lock; /* of the count and the line, which change together */
};

struct platform {
	const struct guest_memory *memory;
	struct lifecycle *lifecycle;
	struct evloop *loop;
	struct bus *ports;
	struct bus *mmio;
	struct serial *com1;
	struct cmos *cmos;
	struct i8042 *i8042;
	struct acpi_pm *acpi_pm;
	int alarm_fd; /* owned timerfd; -1 until the guest wants an alarm; the CMOS's lock guards it
		       */
	bool alarm_refused;
	struct shared_irq com1_irq; /* nobody shares it, nor the next */
	struct shared_irq rtc_irq;
	struct shared_irq sci;
	struct shared_irq intx[GSI_PCI_COUNT];
};

static struct shared_irq make_shared_irq(const struct kvm_machine *machine, unsigned gsi)
{
	return (struct shared_irq){
		.machine = machine,
		.gsi = gsi,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
}

static void set_shared_irq(void *owner, bool asserted)
{
	struct shared_irq *irq = owner;

	pthread_mutex_lock(&irq->lock);
	bool was_high = irq->pulling > 0;

	if (asserted)
		irq->pulling++;
	else
		irq->pulling--;
	if ((irq->pulling > 0) != was_high)
		kvm_machine_set_irq(irq->machine, irq->gsi, asserted);
	pthread_mutex_unlock(&irq->lock);
}

/*
 * A Linux that resets after a panic leaves 0x1234, "warm boot", in the BIOS
 * data area, because our command line says reboot=panic_warm; a reboot that
 * was asked for leaves 0 there.
 */
static bool guest_panicked(const struct platform *platform)
{
	static const uint64_t reset_flag_gpa = 0x472;
	uint16_t flag;

	return guest_memory_read(platform->memory, reset_flag_gpa, &flag, sizeof(flag)) == 0 &&
	       flag == 0x1234;
}

static void request_power(void *owner, enum power_request request)
{
	struct platform *platform = owner;

	if (request == POWER_OFF)
		lifecycle_end(platform->lifecycle, VM_END_POWER_OFF);
	else
		lifecycle_end(platform->lifecycle,
			guest_panicked(platform) ? VM_END_PANIC : VM_END_REBOOT);
}

static int create_com1(struct platform *platform, const struct serial_backend *backend)
{
	struct irq_line irq = { set_shared_irq, &platform->com1_irq };
	int r = serial_create(backend, irq, &platform->com1);

	if (r < 0)
		return r;
	return bus_add(platform->ports, "COM1", PORT_COM1, SERIAL_PORT_SIZE, &serial_bus_ops,
		platform->com1);
}

/* In the control loop. */
static void on_alarm(void *owner)
{
	struct platform *platform = owner;
	struct timespec now;
	uint64_t count;

	if (read(platform->alarm_fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
		return; /* it was set anew */
	clock_gettime(CLOCK_REALTIME, &now);
	cmos_timer_expired(platform->cmos, now.tv_sec);
}

/* Not before a guest wants it, since a VM's start counts its system calls. */
static int open_alarm(struct platform *platform)
{
	int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	int r = fd < 0 ? -errno : 0;

	platform->alarm_fd = fd;
	if (r == 0)
		r = evloop_add(platform->loop, fd, on_alarm, platform);
	if (r == 0)
		return 0;
	log_warn("cannot make a timer: %s; the guest's clock has no alarms", strerror(-r));
	fd_close(&platform->alarm_fd);
	platform->alarm_refused = true;
	return r;
}

static void set_alarm(void *owner, time_t when)
{
	struct platform *platform = owner;
	const struct itimerspec once = { .it_value.tv_sec = when };

	if (platform->alarm_refused || (platform->alarm_fd < 0 && open_alarm(platform) < 0))
		return;
	(void)timerfd_settime(platform->alarm_fd, TFD_TIMER_ABSTIME, &once, NULL);
}

static int create_others(struct platform *platform)
{
	const struct power_sink power = { request_power, platform };
	const struct irq_line sci = { set_shared_irq, &platform->sci };
	const struct irq_line rtc_irq = { set_shared_irq, &platform->rtc_irq };
	const struct cmos_timer alarm = { set_alarm, platform };
	bool high = guest_memory_region_count(platform->memory) > 1;
	int r = cmos_create(guest_memory_region(platform->memory, 0)->size,
		high ? guest_memory_region(platform->memory, 1)->size : 0, rtc_irq, alarm,
		&platform->cmos);

	if (r == 0)
		r = i8042_create(power, &platform->i8042);
	if (r == 0)
		r = acpi_pm_create(sci, power, &platform->acpi_pm);
	return r;
}

static int add_others(struct platform *platform)
{
	const struct {
		const char *name;
		unsigned port, size;
		const struct bus_ops *ops;
		void *device;
	} rows[] = {
		{ "CMOS", PORT_CMOS, CMOS_PORT_SIZE, &cmos_bus_ops, platform->cmos },
		{ "i8042 data", PORT_I8042_DATA, 1, &i8042_data_bus_ops, platform->i8042 },
		{ "i8042 command", PORT_I8042_COMMAND, 1, &i8042_command_bus_ops, platform->i8042 },
		{ "ACPI PM", PORT_ACPI_PM, ACPI_PM_PORT_SIZE, &acpi_pm_bus_ops, platform->acpi_pm },
		{ "ACPI reset", PORT_ACPI_RESET, 1, &acpi_reset_bus_ops, platform->acpi_pm },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(rows); i++)
		r = bus_add(platform->ports, rows[i].name, rows[i].port, rows[i].size, rows[i].ops,
			rows[i].device);
	return r;
}

const struct port_range *platform_quiet_ports(size_t *ret_count)
{
	static const struct port_range ports[] = {
		{ PORT_CMOS, 1 },     /* its index */
		{ PORT_COM1 + 2, 2 }, /* FIFO and line control */
		{ PORT_COM1 + 7, 1 }, /* scratch */
		/* Linux looks there for COM2 to COM4; nothing is. */
		{ 0x2e8, 24 },
		{ 0x3e8, 8 },
	};

	*ret_count = ARRAY_SIZE(ports);
	return ports;
}

int platform_create(const struct kvm_machine *machine, const struct guest_memory *memory,
	struct lifecycle *lifecycle, const struct serial_backend *com1, struct evloop *loop,
	struct platform **ret_platform)
{
	struct platform *platform = calloc(1, sizeof(*platform));

	if (platform == NULL)
		return -ENOMEM;
	platform->memory = memory;
	platform->lifecycle = lifecycle;
	platform->loop = loop;
	platform->alarm_fd = -1;
	platform->com1_irq = make_shared_irq(machine, GSI_COM1);
	platform->rtc_irq = make_shared_irq(machine, GSI_RTC);
	platform->sci = make_shared_irq(machine, GSI_SCI);
	for (unsigned i = 0; i < GSI_PCI_COUNT; i++)
		platform->intx[i] = make_shared_irq(machine, GSI_PCI_FIRST + i);
	int r = bus_create(&platform->ports);

	if (r == 0)
		r = bus_create(&platform->mmio);
	if (r == 0)
		r = create_com1(platform, com1);
	if (r == 0)
		r = create_others(platform);
	if (r == 0)
		r = add_others(platform);
	if (r < 0) {
		platform_free(platform);
		return r;
	}
	*ret_platform = platform;
	return 0;
}

void platform_free(struct platform *platform)
{
	if (platform == NULL)
		return;
	bus_free(platform->ports);
	bus_free(platform->mmio);
	serial_free(platform->com1);
	evloop_remove(platform->loop, platform->alarm_fd);
	fd_close(&platform->alarm_fd);
	cmos_free(platform->cmos);
	i8042_free(platform->i8042);
	acpi_pm_free(platform->acpi_pm);
	free(platform);
}

struct bus *platform_ports(struct platform *platform)
{
	return platform->ports;
}

struct bus *platform_mmio(struct platform *platform)
{
	return platform->mmio;
}

struct serial *platform_com1(struct platform *platform)
{
	return platform->com1;
}

struct irq_line platform_pci_intx(struct platform *platform, unsigned slot)
{
	return (struct irq_line){ set_shared_irq, &platform->intx[slot % GSI_PCI_COUNT] };
}

void platform_press_power_button(struct platform *platform)
{
	acpi_pm_press_power_button(platform->acpi_pm);
}
