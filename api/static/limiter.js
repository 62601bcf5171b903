/** Return a function that starts asynchronous tasks, at most `limit` of them at a time, and gives their results. */
export function limiter(limit) {
  const waiting = [];
  let running = 0;

  function startNext() {
    if (running >= limit || waiting.length === 0) return;
    running += 1;
    waiting.shift()().finally(() => {
      running -= 1;
      startNext();
    });
  }

  return (task, { first = false } = {}) =>
    new Promise((resolve, reject) => {
      const start = async () => {
        try {
          resolve(await task());
        } catch (error) {
          reject(error);
        }
      };
      if (first) waiting.unshift(start);
      else waiting.push(start);
      startNext();
    });
}
