/* Preloaded into User Mode Linux (user_mode.py): ptrace(2) with a block of registers as large as the processor has.
 *
 * The kernel there reads and writes the registers of its processes as NT_X86_XSTATE, in a block whose size was fixed when it was
 * built: all up to PKRU. A processor with AMX has a larger one, and SETREGSET of less than all is refused (EFAULT). So here the whole
 * block is read, the part that the kernel knows is handed over or replaced, and the tiles of AMX count as unused.
 *
 * Sources: ptrace(2), Intel SDM volume 1, 13.4 (layout of the XSAVE area: XSTATE_BV is the word at byte 512).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define XSTATE 0x202UL
#define BLOCK 65536
#define IN_USE_AT 512
#define AMX (3ULL << 17)

typedef long call(int request, pid_t pid, void *address, void *data);

static long whole(call *real, int request, pid_t pid, struct iovec *given)
{
	static __thread char block[BLOCK] __attribute__((aligned(64)));
	struct iovec all = { .iov_base = block, .iov_len = sizeof block };
	unsigned long long in_use;
	long result = real(PTRACE_GETREGSET, pid, (void *)XSTATE, &all);

	if (result < 0)
		return result;
	if (request == PTRACE_GETREGSET) {
		if (given->iov_len > all.iov_len)
			given->iov_len = all.iov_len;
		memcpy(given->iov_base, block, given->iov_len);
		return 0;
	}
	memcpy(block, given->iov_base, given->iov_len < all.iov_len ? given->iov_len : all.iov_len);
	if (given->iov_len < all.iov_len) {
		memcpy(&in_use, block + IN_USE_AT, sizeof in_use);
		in_use &= ~AMX;
		memcpy(block + IN_USE_AT, &in_use, sizeof in_use);
	}
	return real(PTRACE_SETREGSET, pid, (void *)XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	static call *real;
	va_list words;
	pid_t pid;
	void *address, *data;

	va_start(words, request);
	pid = va_arg(words, pid_t);
	address = va_arg(words, void *);
	data = va_arg(words, void *);
	va_end(words);
	if (!real)
		real = (call *)dlsym(RTLD_NEXT, "ptrace");
	if (address == (void *)XSTATE && (request == PTRACE_GETREGSET || request == PTRACE_SETREGSET))
		return whole(real, request, pid, data);
	return real(request, pid, address, data);
}
