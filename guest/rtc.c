// SPDX-License-Identifier: BSD-3-Clause
/*
 * A program for test guests: waits for the real-time clock's update interrupts
 * (three) and for an alarm in 2 s, as hwclock and rtcwake do, and prints what came.
 */
#include <fcntl.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define DEVICE "/dev/rtc0"

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* SIGALRM ends the program when nothing comes. */
static unsigned long await_interrupt(int fd)
{
	unsigned long flags;

	alarm(10);
	if (read(fd, &flags, sizeof(flags)) != (ssize_t)sizeof(flags))
		fail("read");
	alarm(0);
	return flags;
}

static void await_updates(int fd)
{
	if (ioctl(fd, RTC_UIE_ON) < 0)
		fail("RTC_UIE_ON");
	for (int i = 0; i < 3; i++)
		printf("update %d\n", (await_interrupt(fd) & RTC_UF) != 0);
	if (ioctl(fd, RTC_UIE_OFF) < 0)
		fail("RTC_UIE_OFF");
}

static time_t clock_seconds(int fd)
{
	struct rtc_time now;

	if (ioctl(fd, RTC_RD_TIME, &now) < 0)
		fail("RTC_RD_TIME");
	struct tm utc = {
		.tm_sec = now.tm_sec,
		.tm_min = now.tm_min,
		.tm_hour = now.tm_hour,
		.tm_mday = now.tm_mday,
		.tm_mon = now.tm_mon,
		.tm_year = now.tm_year,
	};

	return timegm(&utc);
}

static void await_alarm(int fd)
{
	time_t when = clock_seconds(fd) + 2;
	struct tm utc;

	if (gmtime_r(&when, &utc) == NULL)
		fail("gmtime");
	struct rtc_wkalrm wake = {
		.enabled = 1,
		.time = {
			.tm_sec = utc.tm_sec,
			.tm_min = utc.tm_min,
			.tm_hour = utc.tm_hour,
			.tm_mday = utc.tm_mday,
			.tm_mon = utc.tm_mon,
			.tm_year = utc.tm_year,
		},
	};

	if (ioctl(fd, RTC_WKALM_SET, &wake) < 0)
		fail("RTC_WKALM_SET");
	unsigned long flags = await_interrupt(fd);

	printf("alarm %d, late by %ld\n", (flags & RTC_AF) != 0, (long)(clock_seconds(fd) - when));
}

int main(void)
{
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail(DEVICE);
	await_updates(fd);
	await_alarm(fd);
	return 0;
}
