/*
** tools.h: may a call be made, and what do the built-in tools answer. Part of kernel.h, whose rules
*hold here too.
*/
#ifndef CONVERGIO_TOOLS_H
#define CONVERGIO_TOOLS_H

#include "kernel.h"

#endif
