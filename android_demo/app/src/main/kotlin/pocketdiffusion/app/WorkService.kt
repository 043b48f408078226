package pocketdiffusion.app

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.content.Intent
import android.os.IBinder
import android.os.PowerManager
import android.os.SystemClock

/** Keeps the app alive while it draws, imports, downloads or tests, and says in a notification how far it is. */
class WorkService : Service() {
    private val studio get() = (application as PocketApp).studio
    private val listener = { update() }
    private val notifications get() = getSystemService(NotificationManager::class.java)!!
    private val wakeLock by lazy {
        getSystemService(PowerManager::class.java)!!.newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "pocketdiffusion:work")
    }

    /** The last start that was heard of; null: the system still waits for startForeground. */
    private var startId: Int? = null
    private var shownTitle = ""
    private var shownMillis = 0L

    override fun onBind(intent: Intent?): IBinder? = null

    override fun onCreate() {
        val name = getString(R.string.channel_work)
        notifications.createNotificationChannel(
            NotificationChannel(CHANNEL, name, NotificationManager.IMPORTANCE_LOW),
        )
        studio.listen(listener)
    }

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        if (intent?.action == CANCEL) studio.cancel()
        this.startId = startId
        startForeground(ID, notification())
        if (!wakeLock.isHeld) wakeLock.acquire(LONGEST_MILLIS)
        update()
        return START_NOT_STICKY
    }

    override fun onDestroy() {
        studio.forget(listener)
        if (wakeLock.isHeld) wakeLock.release()
    }

    /** Android 15 ends such services after six hours in a day. */
    override fun onTimeout(startId: Int, fgsType: Int) {
        studio.cancel()
        end()
    }

    /** Says what is new of the work: its kind at once, how far it is twice a second; the system takes no more. */
    private fun update() {
        val work = studio.work ?: return end()
        val (title, now) = Progress(resources).title(work) to SystemClock.elapsedRealtime()
        if (title == shownTitle && now - shownMillis < MILLIS_BETWEEN) return
        shownTitle = title
        shownMillis = now
        notifications.notify(ID, notification())
    }

    /** Stops unless it is just being started, or started again: that start finds out itself whether there is work. */
    private fun end() {
        val last = startId ?: return
        stopForeground(STOP_FOREGROUND_REMOVE)
        stopSelf(last)
    }

    private fun notification(): Notification {
        val work = studio.work
        val open = PendingIntent.getActivity(this, 0, Intent(this, MainActivity::class.java), FLAGS)
        val cancel = PendingIntent.getService(this, 0, Intent(this, WorkService::class.java).setAction(CANCEL), FLAGS)
        val builder = Notification.Builder(this, CHANNEL)
            .setSmallIcon(R.drawable.ic_notification)
            .setColor(getColor(R.color.accent))
            .setContentIntent(open)
            .setOngoing(true)
            .setOnlyAlertOnce(true)
        if (work != null) {
            val words = Progress(resources)
            builder.setContentTitle(words.title(work)).setContentText(words.text(work))
            val parts = ((work.fraction ?: 0.0) * PARTS).toInt()
            builder.setProgress(PARTS, parts, work.fraction == null)
            builder.addAction(Notification.Action.Builder(null, getString(R.string.cancel), cancel).build())
        }
        return builder.build()
    }

    companion object {
        const val CANCEL = "pocketdiffusion.app.CANCEL"
        private const val CHANNEL = "work"
        private const val ID = 1
        private const val PARTS = 1000
        private const val MILLIS_BETWEEN = 500
        private const val LONGEST_MILLIS = 6L * 3600 * 1000
        private const val FLAGS = PendingIntent.FLAG_IMMUTABLE or PendingIntent.FLAG_UPDATE_CURRENT

        /** Starts it where the system allows it: not from the background, where the work goes on without it. */
        fun start(context: Context) {
            try {
                context.startForegroundService(Intent(context, WorkService::class.java))
            } catch (_: IllegalStateException) {
                // Android 12 and newer refuse it to an app that is not on the screen
            }
        }
    }
}
