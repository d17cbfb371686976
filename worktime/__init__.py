"""Working time (工作时间): the calendar and the four clocks, pure."""
