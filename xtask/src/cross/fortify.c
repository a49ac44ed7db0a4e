/* Debian compiles LLVM's libunwind with _FORTIFY_SOURCE. Its messages then go through this function
 * of glibc, which musl lacks. */
#include <stdarg.h>
#include <stdio.h>

int __fprintf_chk(FILE *stream, int flag, const char *format, ...)
{
	va_list arguments;
	int written;

	(void)flag;
	va_start(arguments, format);
	written = vfprintf(stream, format, arguments);
	va_end(arguments);
	return written;
}
