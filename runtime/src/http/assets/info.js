// Buttons of the worker tables: retire a worker, after asking.
"use strict";
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-retire]");
  if (!button) return;
  const address = button.dataset.retire;
  if (!window.confirm(`Retire ${address}? Its data moves to other workers first.`)) return;
  button.disabled = true;
  try {
    const response = await fetch("../../api/v1/retire_workers", { method: "POST", body: JSON.stringify({ workers: [address] }) });
    button.textContent = response.ok ? "Retiring" : `Failed (${response.status})`;
  } catch (error) {
    button.textContent = "Failed";
  }
});
try {
  const theme = localStorage.getItem("oxidask-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch (error) { /* no storage */ }
