/*
** recall.h: what of a memory fits into a prompt. Part of kernel.h, whose rules hold here too.
*/
#ifndef CONVERGIO_RECALL_H
#define CONVERGIO_RECALL_H

#include "kernel.h"

#endif
